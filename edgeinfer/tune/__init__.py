"""What is fitted to a device or to data: the device's profile, ensembles that stop early."""
