"""What is counted, timed, logged and traced."""
