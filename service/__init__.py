"""An HTTP request becomes a stylized image."""
