"""The run's configuration: frozen data, read from YAML and `key=value`, checked before anything starts."""
