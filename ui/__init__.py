"""The browser interface: a Gradio page and named API endpoints over one worker; `server.serve` starts both."""
