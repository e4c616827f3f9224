"""The HTTP shell: routes parse, call and render; nothing here decides what is recorded."""
