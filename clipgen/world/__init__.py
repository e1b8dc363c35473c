"""The illustrated world that storybook is trained on: scenes, their pictures and their captions."""
