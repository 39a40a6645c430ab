"""Media types by file name, from a table of our own: the same on every machine and Python version."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from ..errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

_TABLE = """
text/html html htm
text/css css
text/javascript js mjs
text/plain txt text log conf def list in diff patch ini
text/markdown md markdown
text/csv csv
text/tab-separated-values tsv
text/calendar ics ifb
text/vcard vcf vcard
text/vtt vtt
text/xml xsl
text/cache-manifest appcache
text/x-component htc
application/json json map
application/ld+json jsonld
application/geo+json geojson
application/json5 json5
application/manifest+json webmanifest
application/schema+json jsonschema
application/yaml yaml yml
application/toml toml
application/xml xml xsd
application/xhtml+xml xhtml xht
application/xslt+xml xslt
application/atom+xml atom
application/rss+xml rss
application/rdf+xml rdf
application/mathml+xml mathml
application/wasm wasm
application/pdf pdf
application/rtf rtf
application/postscript ps eps ai
application/epub+zip epub
application/zip zip
application/gzip gz tgz
application/zstd zst
application/x-bzip2 bz2
application/x-xz xz
application/x-tar tar
application/x-7z-compressed 7z
application/vnd.rar rar
application/java-archive jar war ear
application/vnd.android.package-archive apk
application/x-apple-diskimage dmg
application/vnd.debian.binary-package deb
application/x-rpm rpm
application/x-iso9660-image iso
application/x-msdownload exe dll msi
application/x-sh sh
application/sql sql
application/x-sqlite3 sqlite sqlite3
application/vnd.apache.parquet parquet
application/x-x509-ca-cert crt der pem
application/pkcs7-mime p7m p7c
application/pgp-signature asc sig
application/x-shockwave-flash swf
application/vnd.apple.mpegurl m3u8
application/dash+xml mpd
application/msword doc dot
application/vnd.ms-excel xls
application/vnd.ms-powerpoint ppt
application/vnd.openxmlformats-officedocument.wordprocessingml.document docx
application/vnd.openxmlformats-officedocument.spreadsheetml.sheet xlsx
application/vnd.openxmlformats-officedocument.presentationml.presentation pptx
application/vnd.oasis.opendocument.text odt
application/vnd.oasis.opendocument.spreadsheet ods
application/vnd.oasis.opendocument.presentation odp
application/vnd.oasis.opendocument.graphics odg
application/vnd.google-earth.kml+xml kml
application/vnd.google-earth.kmz kmz
application/gpx+xml gpx
application/vnd.ms-fontobject eot
font/woff woff
font/woff2 woff2
font/ttf ttf
font/otf otf
font/collection ttc
image/png png
image/jpeg jpg jpeg jpe jfif
image/gif gif
image/webp webp
image/avif avif
image/apng apng
image/jxl jxl
image/heic heic
image/heif heif
image/svg+xml svg svgz
image/tiff tif tiff
image/bmp bmp
image/vnd.microsoft.icon ico cur
image/vnd.adobe.photoshop psd
audio/mpeg mp3 mp2
audio/mp4 m4a
audio/aac aac
audio/ogg ogg oga
audio/opus opus
audio/flac flac
audio/wav wav
audio/webm weba
audio/midi mid midi kar
video/mp4 mp4 m4v
video/mpeg mpeg mpg
video/webm webm
video/ogg ogv
video/quicktime mov qt
video/x-matroska mkv
video/x-msvideo avi
video/x-flv flv
video/mp2t ts
video/3gpp 3gp 3gpp
model/gltf+json gltf
model/gltf-binary glb
model/obj obj
model/stl stl
model/vnd.usdz+zip usdz
message/rfc822 eml mht mhtml
"""

#: Extension with its dot, lower case, or a whole file name, to media type.
TYPES: Mapping[str, str] = MappingProxyType(
    {
        f".{extension}": kind
        for kind, *extensions in map(str.split, _TABLE.split("\n")[1:-1])
        for extension in extensions
    }
    | {"apple-app-site-association": "application/json", "crossdomain.xml": "text/x-cross-domain-policy"}
)

# Text without being text/*: a charset helps these too. JSON has none (RFC 8259), XML says its own.
_TEXT = frozenset({"application/javascript", "application/x-javascript", "application/ecmascript"})


class MediaTypes:
    """Content-Type by file name.

    ``extra`` overrides and adds (``{".foo": "application/x-foo", "LICENSE": "text/plain"}``; keys ignore case);
    ``table`` replaces the shipped one (Apache's TypesConfig); ``default`` is for unknown names, empty for no field
    (Apache 2.4); ``charset`` is appended to text types, empty for none (AddDefaultCharset). With
    ``every_extension`` all extensions of a name count and the last known one wins, as mod_mime does it.
    """

    __slots__ = ("_charset", "_default", "_every", "_table")

    def __init__(
        self,
        extra: Mapping[str, str] | None = None,
        *,
        table: Mapping[str, str] = TYPES,
        default: str = "application/octet-stream",
        charset: str = "utf-8",
        every_extension: bool = False,
    ) -> None:
        merged = {key.lower(): value for key, value in table.items()}
        merged.update({key.lower(): value for key, value in (extra or {}).items()})
        for key, value in (extra or {}).items():
            if f".{key}" in table or (isinstance(value, str) and "/" not in value):
                raise ConfigError(f'mimetypes must map ".ext" (or a file name) to "type/subtype", got {(key, value)!r}')
        for value in (*merged.values(), default, charset):
            if not isinstance(value, str) or not value.isascii() or not value.isprintable():
                raise ConfigError(f"mimetypes must be printable ASCII text, got {value!r}")
        self._charset = charset
        self._table = {key: self._with_charset(value) for key, value in merged.items()}
        self._default = default
        self._every = every_extension

    def of(self, name: str) -> str:
        """The Content-Type of a file name (its last path segment), or the default."""
        name = name.rpartition("/")[2].lower()
        if name in self._table and not name.startswith("."):
            return self._table[name]
        _, *extensions = name.lstrip(".").split(".")
        for extension in reversed(extensions if self._every else extensions[-1:]):
            kind = self._table.get("." + extension)
            if kind is not None:
                return kind
        return self._default

    def _with_charset(self, kind: str) -> str:
        essence = kind.partition(";")[0].strip().lower()
        if self._charset and ";" not in kind and (essence.startswith("text/") or essence in _TEXT):
            return f"{kind}; charset={self._charset}"
        return kind
