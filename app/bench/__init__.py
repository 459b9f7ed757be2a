"""What ``whisperd bench`` measures: each backend with each model, on this machine."""
