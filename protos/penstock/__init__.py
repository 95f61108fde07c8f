"""The contract: everything two sides must agree on to the byte."""
