package istio

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"
	"istio.io/istio/pilot/pkg/features"
	"istio.io/istio/pilot/test/xds"
	"istio.io/istio/pkg/config/mesh"
	"istio.io/istio/pkg/security"
	"istio.io/istio/pkg/test"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

const (
	gatewayNamespace = "istio-system"
	gatewayHost      = "ai.example.org"
)

// gateway is an ingress gateway: istiod, and an Envoy that has everything from it.
type gateway struct {
	t     *testing.T
	admin string
	log   *tail
}

// newGateway starts istiod on the objects and the gateway's Envoy.
func newGateway(t *testing.T, objects string, secrets ...runtime.Object) *gateway {
	t.Helper()
	// An Envoy that is not Istio's lacks these two filters of its own.
	test.SetForTest(t, &features.MetadataExchange, false)
	test.SetForTest(t, &features.ALPNFilter, false)
	// The connection is not TLS here; istiod still has to know which gateway asks for secrets.
	test.SetForTest(t, &security.AuthPlaintext, true)
	m := mesh.DefaultMeshConfig()
	m.EnableAutoMtls = wrapperspb.Bool(false) // certificates of the mesh come from an agent beside Istio's proxy
	m.DefaultProviders = nil                  // metrics are another filter of Istio's own
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	istiod := xds.NewFakeDiscoveryServer(t, xds.FakeOptions{
		ConfigString: objects, MeshConfig: m, KubernetesObjects: secrets, DisableSecretAuthorization: true,
		ListenerBuilder: func() (net.Listener, error) { return l, nil },
	})
	istiod.Discovery.Authenticators = []security.Authenticator{account{}}

	g := &gateway{t: t, admin: fmt.Sprintf("127.0.0.1:%d", freePort(t))}
	bootstrap := strings.NewReplacer("@XDS@", fmt.Sprint(l.Addr().(*net.TCPAddr).Port), "@ADMIN@", g.admin[strings.LastIndexByte(g.admin, ':')+1:]).Replace(gatewayBootstrap)
	g.log = start(t, nil, *ingress, "-c", write(t, t.TempDir(), "gateway.yaml", bootstrap), "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning")
	return g
}

// account is who the gateway's pod runs as.
type account struct{}

func (account) AuthenticatorType() string { return "test" }

func (account) Authenticate(security.AuthContext) (*security.Caller, error) {
	return &security.Caller{Identities: []string{"spiffe://cluster.local/ns/" + gatewayNamespace + "/sa/gateway"}}, nil
}

// gatewayBootstrap is what an agent beside Istio's proxy would write. The node's
// address differs from each endpoint's, or istiod takes it for one of them.
const gatewayBootstrap = `
node:
  id: router~127.0.1.1~gateway.istio-system~istio-system.svc.cluster.local
  cluster: gateway.istio-system
  metadata:
    CLUSTER_ID: Kubernetes
    NAMESPACE: istio-system
    NAME: gateway
    MESH_ID: cluster.local
    INSTANCE_IPS: 127.0.1.1
    ISTIO_VERSION: 1.31.0
    SERVICE_ACCOUNT: gateway
    WORKLOAD_NAME: gateway
    LABELS: {istio: ingressgateway}
    PROXY_CONFIG: {}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: @ADMIN@}}}
dynamic_resources:
  ads_config:
    api_type: GRPC
    transport_api_version: V3
    set_node_on_first_message_only: true
    grpc_services: [{envoy_grpc: {cluster_name: xds-grpc}}]
  lds_config: {ads: {}, initial_fetch_timeout: 0s, resource_api_version: V3}
  cds_config: {ads: {}, initial_fetch_timeout: 0s, resource_api_version: V3}
static_resources:
  clusters:
  - name: xds-grpc
    type: STATIC
    connect_timeout: 1s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment:
      cluster_name: xds-grpc
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: @XDS@}}}}]}]
`

// ask reads the admin address of the gateway's Envoy.
func (g *gateway) ask(path string) string {
	r, err := http.Get("http://" + g.admin + path)
	if err != nil {
		return err.Error()
	}
	defer r.Body.Close()
	b, _ := io.ReadAll(r.Body)
	return string(b)
}

// waitListener waits until the gateway listens, or refuses a listener.
func (g *gateway) waitListener() {
	g.t.Helper()
	eventually(g.t, 20*time.Second, func() string {
		if s := g.ask("/listeners"); !strings.Contains(s, "::") {
			return "no listener: " + s
		}
		return ""
	})
}

// authority signs certificates for the test.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, key: newKey(t)}
	a.cert = a.sign(&x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil, a.key)
	a.pem = encode("CERTIFICATE", a.cert.Raw)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a *authority) sign(c, parent *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	a.t.Helper()
	c.SerialNumber, c.Subject = big.NewInt(time.Now().UnixNano()), pkix.Name{CommonName: "weir"}
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	if parent == nil {
		parent = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return parsed
}

func encode(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// issue gives a certificate for a name, or for a SPIFFE ID, and its key.
func (a *authority) issue(name string) (cert, key string) {
	a.t.Helper()
	c := &x509.Certificate{KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	if strings.HasPrefix(name, "spiffe://") {
		u, err := url.Parse(name)
		if err != nil {
			a.t.Fatal(err)
		}
		c.URIs = []*url.URL{u}
	} else {
		c.DNSNames = []string{name}
	}
	k := newKey(a.t)
	private, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		a.t.Fatal(err)
	}
	return encode("CERTIFICATE", a.sign(c, a.cert, k).Raw), encode("PRIVATE KEY", private)
}

func (a *authority) pair(name string) tls.Certificate {
	a.t.Helper()
	cert, key := a.issue(name)
	p, err := tls.X509KeyPair([]byte(cert), []byte(key))
	if err != nil {
		a.t.Fatal(err)
	}
	return p
}

// secret is one of the gateway's namespace.
func secret(name string, data map[string]string) *corev1.Secret {
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: gatewayNamespace}, Data: map[string][]byte{}}
	for k, v := range data {
		s.Data[k] = []byte(v)
	}
	return s
}
