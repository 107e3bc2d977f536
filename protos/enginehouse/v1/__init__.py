"""Messages and stubs of the contract, generated from the .proto files beside this one."""
