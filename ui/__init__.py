"""The browser: a page to type prompts into, and named endpoints for programs; `app.serve` opens both."""
