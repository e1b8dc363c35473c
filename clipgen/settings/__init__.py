"""The settings of one generation: fields and defaults, the checks of each, and presets."""
