"""Images and labels: sets, readers, what a user gives, what goes to the device."""
