"""The former place of Instrument; it lives in penstock_client.instruments."""

from penstock_client.instruments import Instrument

__all__ = ["Instrument"]
