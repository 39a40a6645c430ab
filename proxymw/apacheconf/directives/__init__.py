"""The tables of directives. Importing this package fills them."""

from proxymw.apacheconf.directives import access, core, headers, logs, proxy, rewrite, unsupported

__all__ = ["access", "core", "headers", "logs", "proxy", "rewrite", "unsupported"]
