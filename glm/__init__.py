"""The model side of GLM Workbench. `import glm` is light: torch comes with the first `open`."""
