"""The form: a component for each Settings field, and what is shown next to them: sizes, cost, tokens."""
