"""whisperd: keeps Whisper warm on this machine and answers OpenAI's audio API."""

__version__ = "0.1.0"
