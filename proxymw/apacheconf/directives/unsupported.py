"""Directives without effect, and what to use instead of those that are not supported."""

from __future__ import annotations

from proxymw.apacheconf.interpreter import HARMLESS, INSTEAD, NO_EFFECT


def _words(text: str) -> list[str]:
    return text.split()


_SERVER = "it belongs to the WSGI server"
for _name in _words(
    """
    Listen ListenBacklog User Group PidFile DefaultRuntimeDir LoadModule LoadFile StartServers
    ServerLimit ThreadLimit ThreadsPerChild MinSpareThreads MaxSpareThreads MaxRequestWorkers MaxClients
    MinSpareServers MaxSpareServers MaxConnectionsPerChild MaxRequestsPerChild AsyncRequestWorkerFactor
    ScoreBoardFile KeepAlive KeepAliveTimeout MaxKeepAliveRequests RequestReadTimeout LimitRequestLine
    LimitRequestFields LimitRequestFieldSize AcceptFilter Mutex CoreDumpDirectory EnableSendfile
    EnableMMAP SendBufferSize ReceiveBufferSize ListenCoresBucketsRatio ThreadStackSize
    GracefulShutdownTimeout NameVirtualHost HostnameLookups Protocols ProtocolsHonorOrder
    """
):
    NO_EFFECT[_name.lower()] = _SERVER

for _name in _words(
    """
    ServerTokens ServerSignature LogLevel ErrorLogFormat BufferedLogs ExtendedStatus AddDefaultCharset
    """
):
    NO_EFFECT[_name.lower()] = "it changes no decision about a request"
for _name in _words(
    """
    ProxyIOBufferSize ProxyReceiveBufferSize Proxy100Continue ProxyStatus ProxyHCTPsize
    """
):
    NO_EFFECT[_name.lower()] = "the transport decides that"
NO_EFFECT["unixsocketpermissions"] = _SERVER
NO_EFFECT["contentdigest"] = NO_EFFECT["mimemagicfile"] = "it changes no decision about a request"

_TLS = "TLS ends in the server in front: give gunicorn --certfile and --keyfile"
for _name in _words(
    """
    SSLEngine SSLCertificateFile SSLCertificateKeyFile SSLCertificateChainFile SSLProtocol
    SSLCipherSuite SSLHonorCipherOrder SSLSessionCache SSLSessionTickets SSLUseStapling SSLStaplingCache
    SSLRandomSeed SSLPassPhraseDialog SSLOptions SSLCompression SSLSessionCacheTimeout
    """
):
    HARMLESS[_name.lower()] = _TLS
for _name in _words(
    """
    ExpiresActive ExpiresByType ExpiresDefault AddOutputFilterByType DeflateCompressionLevel
    DeflateFilterNote IndexOptions IndexIgnore AddIcon AddIconByType AddIconByEncoding DefaultIcon
    ReadmeName HeaderName AddEncoding AddLanguage AddCharset DefaultType LanguagePriority
    ForceLanguagePriority AddDescription H2Push H2Direct ModMimeUsePathInfo AddOutputFilter CacheEnable
    CacheRoot LogIOTrackTTFB
    """
):
    HARMLESS[_name.lower()] = "it changes how an answer looks, not where a request goes"

INSTEAD.update(
    {
        "authtype": "authenticate in a WSGI middleware in front of what is protected",
        "authname": "authenticate in a WSGI middleware in front of what is protected",
        "authuserfile": "authenticate in a WSGI middleware in front of what is protected",
        "authbasicprovider": "authenticate in a WSGI middleware in front of what is protected",
        "scriptalias": "mount a WSGI application under the prefix",
        "wsgiscriptalias": "mount the WSGI application: PrefixProxy(…, [(prefix, application)])",
        "wsgidaemonprocess": "gunicorn's --workers and --threads do this",
        "proxyremote": "chains of forward proxies are not offered",
        "proxyremotematch": "chains of forward proxies are not offered",
        "noproxy": "chains of forward proxies are not offered",
        "proxyblock": "deny with IPAllowlist or a RewriteRule [F]",
        "proxyhtmlenable": "bodies are never changed; make the application use the public prefix",
        "proxypassinterpolateenv": "write a RewriteRule with %{ENV:NAME} and [P]",
        "proxysourceaddress": "the system's routing table chooses the source address",
        "proxyexpresenable": "write RewriteMap with a RewriteRule [P]",
        "proxyhcexpr": "the pool's own health checks take a status range",
        "proxyhctemplate": "give the member its hc… parameters directly",
        "virtualdocumentroot": "write a RewriteRule with %{HTTP_HOST}, or one VirtualHost a name",
        "setoutputfilter": "bodies are never changed",
        "setinputfilter": "bodies are never changed",
        "sslproxyengine": "https:// targets need no switch, and are verified",
        "sslproxyverify": "certificates of origins are always verified",
        "sslproxycacertificatefile": "Transport(ca_bundle=…) in Python",
        "limitxmlrequestbody": "LimitRequestBody covers it",
        "if": "<Location> and RewriteCond can say most of it",
        "macro": "Define and ${NAME} can say most of it",
        "use": "Define and ${NAME} can say most of it",
        "action": "mount a WSGI application under the prefix",
        "addhandler": "SetHandler balancer-manager is the one handler there is",
        "passengerenabled": "mount the WSGI application in Python",
        "serverpath": "use ServerName and ServerAlias",
        "satisfyany": "write Satisfy Any",
    }
)
