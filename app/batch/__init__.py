"""Many recordings into text: what ``whisperd transcribe`` is made of."""
