"""The service: Open Inference Protocol V2 over HTTP/1.1, one process, one memory ceiling, made for small devices under systemd."""
