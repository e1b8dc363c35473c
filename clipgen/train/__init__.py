"""Training: the world, the parts of storybook, one loop and one recipe."""
