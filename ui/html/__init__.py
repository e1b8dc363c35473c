"""Functions that return HTML for gr.HTML components; each text in it is escaped."""
