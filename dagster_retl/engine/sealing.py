"""Documents of refused rows, encrypted before they are kept (https://cryptography.io/en/stable/fernet/)."""

from __future__ import annotations

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from dagster_retl.errors import ConfigurationError


class Sealer:
    """Encrypts with the first of these Fernet keys (separated by commas), decrypts with any of them."""

    def __init__(self, keys: str) -> None:
        self._fernet = MultiFernet([Fernet(key.strip()) for key in keys.split(",")])

    def seal(self, document: bytes) -> bytes:
        """The document as it may be kept."""
        return self._fernet.encrypt(document)

    def unseal(self, payload: bytes) -> bytes:
        """The document again. Raises `ConfigurationError` when it was sealed with another key."""
        try:
            return self._fernet.decrypt(payload)
        except InvalidToken:
            raise ConfigurationError(
                "`dead_letters.payload_key` is not the key that this payload was encrypted with",
                hint="Add the earlier key, after a comma: the first key encrypts, all of them decrypt.",
            ) from None
