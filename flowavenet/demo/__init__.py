"""The web page: hear a vocoder, see what it makes, and play with the noise that only a flow has."""
