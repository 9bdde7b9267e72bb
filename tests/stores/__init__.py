"""The stores: each passes the contract, and what only one of them promises."""
