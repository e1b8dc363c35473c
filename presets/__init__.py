"""The bundled presets, one TOML file each."""
