"""What the HTML pages of the jobs share: templates, style, axes."""
