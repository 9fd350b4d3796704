package api

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	jose "github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/weirproxy/weir/control"
	"github.com/weirproxy/weir/control/sqlite"
	"github.com/weirproxy/weir/internal/plan"
	adminv1 "github.com/weirproxy/weir/proto/weir/admin/v1"
	"github.com/weirproxy/weir/proto/weir/admin/v1/adminv1connect"
)

// world is an API with a real store.
type world struct {
	*Server
	store   control.Store
	budgets *book
	log     *strings.Builder
}

func newWorld(t *testing.T) *world {
	t.Helper()
	store, err := sqlite.Open(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	p := &plan.Plan{Stored: plan.NewRing(), Keys: map[plan.KeyHash]*plan.Key{}, Directory: plan.Directory{
		Teams: map[string][]string{"core": {"user"}},
	}, Roles: map[string]*plan.Role{"user": {Name: "user"}}}
	p.SetHashSecret([]byte("a secret of tests"))
	w := &world{store: store, log: &strings.Builder{}}
	log := slog.New(slog.NewTextHandler(w.log, nil))
	w.budgets = newBook()
	w.Server = New(Options{Log: log, Metrics: prometheus.NewRegistry(), Budgets: w.budgets, Keeper: &control.Keeper{
		Store: store, Plan: func() *plan.Plan { return p }, Follower: control.NewFollower(store, p.Stored, log),
	}})
	return w
}

// as serves the API to one caller, whoever connects.
func (w *world) as(t *testing.T, actor *control.Actor) (adminv1connect.KeyServiceClient, adminv1connect.AuditServiceClient, adminv1connect.BudgetServiceClient) {
	t.Helper()
	s := w.bounded(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if actor != nil {
			r = r.WithContext(withActor(r.Context(), *actor))
		}
		w.mux.ServeHTTP(rw, r)
	}))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	base := "http://" + l.Addr().String()
	return adminv1connect.NewKeyServiceClient(http.DefaultClient, base), adminv1connect.NewAuditServiceClient(http.DefaultClient, base),
		adminv1connect.NewBudgetServiceClient(http.DefaultClient, base)
}

// everyCall makes each call there is, by its procedure.
func everyCall(keys adminv1connect.KeyServiceClient, audit adminv1connect.AuditServiceClient, budgets adminv1connect.BudgetServiceClient) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		adminv1connect.KeyServiceCreateKeyProcedure: func(ctx context.Context) error {
			_, err := keys.CreateKey(ctx, connect.NewRequest(&adminv1.CreateKeyRequest{Name: "k", Team: "core"}))
			return err
		},
		adminv1connect.KeyServiceListKeysProcedure: func(ctx context.Context) error {
			_, err := keys.ListKeys(ctx, connect.NewRequest(&adminv1.ListKeysRequest{}))
			return err
		},
		adminv1connect.KeyServiceGetKeyProcedure: func(ctx context.Context) error {
			_, err := keys.GetKey(ctx, connect.NewRequest(&adminv1.GetKeyRequest{Key: &adminv1.GetKeyRequest_Name{Name: "there"}}))
			return err
		},
		adminv1connect.KeyServiceRotateKeyProcedure: func(ctx context.Context) error {
			_, err := keys.RotateKey(ctx, connect.NewRequest(&adminv1.RotateKeyRequest{Name: "there"}))
			return err
		},
		adminv1connect.KeyServiceSetKeyStateProcedure: func(ctx context.Context) error {
			_, err := keys.SetKeyState(ctx, connect.NewRequest(&adminv1.SetKeyStateRequest{Name: "there", State: adminv1.KeyState_KEY_STATE_DISABLED}))
			return err
		},
		adminv1connect.KeyServiceRevokeKeyProcedure: func(ctx context.Context) error {
			_, err := keys.RevokeKey(ctx, connect.NewRequest(&adminv1.RevokeKeyRequest{Name: "there"}))
			return err
		},
		adminv1connect.BudgetServiceListBudgetsProcedure: func(ctx context.Context) error {
			_, err := budgets.ListBudgets(ctx, connect.NewRequest(&adminv1.ListBudgetsRequest{}))
			return err
		},
		adminv1connect.BudgetServiceResetBudgetProcedure: func(ctx context.Context) error {
			_, err := budgets.ResetBudget(ctx, connect.NewRequest(&adminv1.ResetBudgetRequest{Name: "month", All: true}))
			return err
		},
		adminv1connect.AuditServiceListAuditProcedure: func(ctx context.Context) error {
			_, err := audit.ListAudit(ctx, connect.NewRequest(&adminv1.ListAuditRequest{}))
			return err
		},
	}
}

// Every procedure, by callers with each role and with none: who may not is told so,
// and that is audited.
func TestRoles(t *testing.T) {
	for _, roles := range [][]string{nil, {Viewer}, {Operator}, {Finance}, {"king"}} {
		w := newWorld(t)
		if _, _, err := w.o.Keeper.Create(t.Context(), control.Actor{Name: "test"}, control.New{Name: "there", Owner: plan.Owner{Team: "core"}}); err != nil {
			t.Fatal(err)
		}
		actor := control.Actor{Name: fmt.Sprintf("test:%v", roles), Roles: roles}
		all := everyCall(w.as(t, &actor))
		if len(all) != len(calls) {
			t.Fatalf("%d calls are tried, there are %d", len(all), len(calls))
		}
		var denied []string
		for procedure, call := range all {
			c := calls[procedure]
			may := len(roles) > 0 && (c.reads && slices.Contains(everyone, roles[0]) || slices.Contains(c.roles, roles[0]))
			err := call(t.Context())
			if got := connect.CodeOf(err); may && err != nil && got != connect.CodeFailedPrecondition || // it was revoked before
				!may && got != connect.CodePermissionDenied {
				t.Errorf("%v %s: %v", roles, c.action, err)
			}
			if !may {
				denied = append(denied, c.action)
			}
		}
		var audited []string
		list, err := w.store.Audit(t.Context(), control.AuditFilter{Outcome: control.Denied}, 100)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range list {
			audited = append(audited, r.Action)
			if r.Actor != actor.Name || !slices.Equal(r.Roles, roles) || !strings.Contains(r.Detail, "needs the role") {
				t.Errorf("record %+v", r)
			}
		}
		slices.Sort(denied)
		slices.Sort(audited)
		if !slices.Equal(denied, audited) {
			t.Errorf("%v: denied %v, audited %v", roles, denied, audited)
		}
	}
}

// A caller that nobody identified may do nothing, whatever the handler is mounted on.
func TestUnidentified(t *testing.T) {
	w := newWorld(t)
	for procedure, call := range everyCall(w.as(t, nil)) {
		if err := call(t.Context()); connect.CodeOf(err) != connect.CodeUnauthenticated {
			t.Errorf("%s: %v", procedure, err)
		}
	}
	if list, err := w.store.Audit(t.Context(), control.AuditFilter{}, 10); err != nil || len(list) != 0 {
		t.Errorf("strangers fill the audit: %+v, %v", list, err)
	}
}

// What callers get wrong is named, is audited where it would have changed something,
// and holds no secret.
func TestWrongCalls(t *testing.T) {
	w := newWorld(t)
	keys, audit, _ := w.as(t, &control.Actor{Name: "test", Roles: []string{Operator}})
	ctx := t.Context()
	made, err := keys.CreateKey(ctx, connect.NewRequest(&adminv1.CreateKeyRequest{Name: "k", Team: "core", Ttl: durationpb.New(time.Hour)}))
	if err != nil || made.Msg.Key.ExpireTime == nil {
		t.Fatalf("%v, %v", made, err)
	}
	create := func(m *adminv1.CreateKeyRequest) error {
		_, err := keys.CreateKey(ctx, connect.NewRequest(m))
		return err
	}
	get := func(m *adminv1.GetKeyRequest) error {
		_, err := keys.GetKey(ctx, connect.NewRequest(m))
		return err
	}
	list := func(n int32, token string) error {
		_, err := audit.ListAudit(ctx, connect.NewRequest(&adminv1.ListAuditRequest{PageSize: n, PageToken: token}))
		return err
	}
	listKeys := func(status string) error {
		_, err := keys.ListKeys(ctx, connect.NewRequest(&adminv1.ListKeysRequest{Status: status}))
		return err
	}
	outcome := func(o string) error {
		_, err := audit.ListAudit(ctx, connect.NewRequest(&adminv1.ListAuditRequest{Outcome: o}))
		return err
	}
	state := func(s adminv1.KeyState) error {
		_, err := keys.SetKeyState(ctx, connect.NewRequest(&adminv1.SetKeyStateRequest{Name: "k", State: s}))
		return err
	}
	rotate := func(name string, d *durationpb.Duration) error {
		_, err := keys.RotateKey(ctx, connect.NewRequest(&adminv1.RotateKeyRequest{Name: name, Overlap: d}))
		return err
	}
	wrong := []byte(made.Msg.Secret)
	wrong[42] ^= 1
	for i, tt := range []struct {
		err  error
		code connect.Code
		says string
	}{
		{create(&adminv1.CreateKeyRequest{Name: "k", Team: "core"}), connect.CodeAlreadyExists, "not used again"},
		{create(&adminv1.CreateKeyRequest{Name: "K", Team: "core"}), connect.CodeInvalidArgument, "name"},
		{create(&adminv1.CreateKeyRequest{Name: "n", Team: "core", Ttl: durationpb.New(time.Hour), ExpireTime: timestamppb.Now()}), connect.CodeInvalidArgument, "either"},
		{create(&adminv1.CreateKeyRequest{Name: "n", Team: "core", Ttl: durationpb.New(0)}), connect.CodeInvalidArgument, "positive"},
		{create(&adminv1.CreateKeyRequest{Name: "n", Team: "core", Ttl: &durationpb.Duration{Seconds: 1, Nanos: -1}}), connect.CodeInvalidArgument, "ttl"},
		{create(&adminv1.CreateKeyRequest{Name: "n", Team: "core", ExpireTime: &timestamppb.Timestamp{Seconds: -1e18}}), connect.CodeInvalidArgument, "expire_time"},
		{create(&adminv1.CreateKeyRequest{Name: "n\x1b[2J" + strings.Repeat("n", 4000), Team: "core"}), connect.CodeInvalidArgument, "name"},
		{get(&adminv1.GetKeyRequest{}), connect.CodeInvalidArgument, "name or secret"},
		{get(&adminv1.GetKeyRequest{Key: &adminv1.GetKeyRequest_Name{Name: "nobody"}}), connect.CodeNotFound, "nobody"},
		{get(&adminv1.GetKeyRequest{Key: &adminv1.GetKeyRequest_Secret{Secret: string(wrong)}}), connect.CodeInvalidArgument, "never a key"},
		{get(&adminv1.GetKeyRequest{Key: &adminv1.GetKeyRequest_Secret{Secret: "sk-other"}}), connect.CodeNotFound, "no key has"},
		{get(&adminv1.GetKeyRequest{Key: &adminv1.GetKeyRequest_Secret{Secret: made.Msg.Secret}}), 0, ""},
		{list(-1, ""), connect.CodeInvalidArgument, "page_size"},
		{list(1001, ""), connect.CodeInvalidArgument, "page_size"},
		{list(1, "x"), connect.CodeInvalidArgument, "page_token"},
		{list(1, "1"), 0, ""},
		{listKeys("revoked"), connect.CodeInvalidArgument, "key_revoked"},
		{listKeys("active"), 0, ""},
		{outcome("refused"), connect.CodeInvalidArgument, "outcome"},
		{outcome("failed"), 0, ""},
		{state(adminv1.KeyState_KEY_STATE_UNSPECIFIED), connect.CodeInvalidArgument, "state"},
		{state(adminv1.KeyState_KEY_STATE_REVOKED), connect.CodeInvalidArgument, "RevokeKey"},
		{state(7), connect.CodeInvalidArgument, "state"},
		{rotate("k", durationpb.New(-1)), connect.CodeInvalidArgument, "overlap"},
		{rotate("k", durationpb.New(1e18)), connect.CodeInvalidArgument, "overlap"},
		{rotate("none", nil), connect.CodeNotFound, "none"},
		{rotate("k", nil), 0, ""},
	} {
		if tt.code == 0 && tt.err != nil || tt.code != 0 && (connect.CodeOf(tt.err) != tt.code || !strings.Contains(tt.err.Error(), tt.says)) {
			t.Errorf("%d: %v; want %s that says %q", i, tt.err, tt.code, tt.says)
		}
		if tt.err != nil && (strings.Contains(tt.err.Error(), "weir_") || strings.Contains(tt.err.Error(), "sk-other")) {
			t.Errorf("a secret is in %v", tt.err)
		}
	}
	failed, err := w.store.Audit(ctx, control.AuditFilter{Outcome: control.Failed}, 100)
	if err != nil || len(failed) != 13 {
		t.Errorf("%d failed calls in the audit: %v", len(failed), err)
	}
	for _, r := range failed {
		if len(r.Object) > 600 || strings.ContainsAny(r.Object+r.Detail, "\x1b\n") {
			t.Errorf("a caller's text is in the audit as it came: %q %q", r.Object, r.Detail)
		}
	}
	if strings.Contains(w.log.String(), "weir_") {
		t.Error("a key is in the log")
	}
}

// Pages of the audit have every record once, the newest first.
func TestAuditPages(t *testing.T) {
	w := newWorld(t)
	_, audit, _ := w.as(t, &control.Actor{Name: "test", Roles: []string{Viewer}})
	for i := range 23 {
		if err := w.store.Note(t.Context(), control.Record{Time: time.UnixMicro(int64(i + 1)), Actor: fmt.Sprint(i % 2)}); err != nil {
			t.Fatal(err)
		}
	}
	m := &adminv1.ListAuditRequest{PageSize: 5, Actor: "1"}
	var ids []int64
	for {
		resp, err := audit.ListAudit(t.Context(), connect.NewRequest(m))
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range resp.Msg.Records {
			ids = append(ids, r.Id)
		}
		if m.PageToken = resp.Msg.NextPageToken; m.PageToken == "" {
			break
		}
	}
	if want := []int64{22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2}; !slices.Equal(ids, want) {
		t.Errorf("%v, want %v", ids, want)
	}
}

// The kernel says who is at the other end of the socket.
func TestSocket(t *testing.T) {
	w := newWorld(t)
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := w.SocketServer()
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
	for name, tt := range map[string]struct {
		protocols func(*http.Protocols)
		options   []connect.ClientOption
	}{
		"connect": {func(p *http.Protocols) { p.SetHTTP1(true) }, nil},
		"grpc":    {func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) }, []connect.ClientOption{connect.WithGRPC()}},
	} {
		protocols := new(http.Protocols)
		tt.protocols(protocols)
		c := &http.Client{Transport: &http.Transport{DialContext: dial, Protocols: protocols}}
		resp, err := adminv1connect.NewKeyServiceClient(c, "http://weir", tt.options...).
			CreateKey(t.Context(), connect.NewRequest(&adminv1.CreateKeyRequest{Name: name, Team: "core"}))
		if err != nil || !strings.HasPrefix(resp.Msg.Key.Creator, "socket:uid=") {
			t.Errorf("%s: %v, %v", name, resp, err)
		}
	}
}

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  ed25519.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, private, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

// issue makes a certificate as PEM, and its key.
func (a *authority) issue(t *testing.T, name string, uris []string, use x509.ExtKeyUsage) (certificate, key []byte) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{use},
	}
	for _, text := range uris {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		template.URIs = append(template.URIs, u)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, public, a.key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

// overTLS is an API that is served over TLS.
type overTLS struct {
	*world
	server *TLSServer
	api    *plan.AdminAPI
	base   string
	ca     *authority
}

func serveTLS(t *testing.T, configure func(*plan.AdminAPI, *authority)) *overTLS {
	t.Helper()
	o := &overTLS{world: newWorld(t), ca: newAuthority(t)}
	certificate, key := o.ca.issue(t, "weir", nil, x509.ExtKeyUsageServerAuth)
	o.api = &plan.AdminAPI{TLS: &plan.ServerTLS{CertificateChain: certificate, PrivateKey: key}}
	configure(o.api, o.ca)
	var err error
	if o.server, err = o.NewTLSServer(o.api); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = o.server.ServeTLS(l, "", "") }()
	t.Cleanup(func() { _ = o.server.Close() })
	o.base = "https://" + l.Addr().String()
	return o
}

// client calls with a certificate, if there is one, and an Authorization header.
func (o *overTLS) client(t *testing.T, certificate, key []byte, authorization ...string) adminv1connect.KeyServiceClient {
	t.Helper()
	config := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: x509.NewCertPool()}
	config.RootCAs.AddCert(o.ca.cert)
	if certificate != nil {
		pair, err := tls.X509KeyPair(certificate, key)
		if err != nil {
			t.Fatal(err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	c := &http.Client{Transport: header{&http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}, authorization}}
	return adminv1connect.NewKeyServiceClient(c, o.base)
}

type header struct {
	next          http.RoundTripper
	authorization []string
}

func (h header) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	for _, v := range h.authorization {
		r.Header.Add("Authorization", v)
	}
	return h.next.RoundTrip(r)
}

func create(t *testing.T, c adminv1connect.KeyServiceClient, name string) (*adminv1.Key, error) {
	t.Helper()
	resp, err := c.CreateKey(t.Context(), connect.NewRequest(&adminv1.CreateKeyRequest{Name: name, Team: "core"}))
	if err != nil {
		return nil, err
	}
	return resp.Msg.Key, nil
}

// Client certificates: who has which role, and who is not let in at all.
func TestCertificates(t *testing.T) {
	o := serveTLS(t, func(p *plan.AdminAPI, ca *authority) {
		p.ClientCAs = ca.pem
		p.Clients = []plan.AdminClient{
			{SPIFFEID: "spiffe://example.org/ops", Roles: []string{Operator}},
			{CommonName: "dashboard", Roles: []string{Viewer}},
			{CommonName: "boss", Roles: []string{Operator, Finance}},
		}
	})
	other := newAuthority(t)
	const (
		client   = x509.ExtKeyUsageClientAuth
		notLetIn = connect.Code(99) // the connection ends, in one way or another
	)
	for i, tt := range []struct {
		by    *authority
		cn    string
		uris  []string
		use   x509.ExtKeyUsage
		code  connect.Code // 0: it may
		actor string
	}{
		{o.ca, "", []string{"spiffe://example.org/ops"}, client, 0, "spiffe://example.org/ops"},
		{o.ca, "boss", nil, client, 0, "cert:boss"},
		{o.ca, "dashboard", nil, client, connect.CodePermissionDenied, ""},
		{o.ca, "nobody", nil, client, connect.CodePermissionDenied, ""},
		{o.ca, "", []string{"spiffe://example.org/ops/more"}, client, connect.CodePermissionDenied, ""},
		{o.ca, "", []string{"spiffe://example.org/ops", "spiffe://example.org/other"}, client, connect.CodePermissionDenied, ""},
		{o.ca, "Boss", nil, client, connect.CodePermissionDenied, ""},
		{o.ca, "spiffe://example.org/ops", nil, client, connect.CodePermissionDenied, ""},
		{o.ca, "boss", nil, x509.ExtKeyUsageServerAuth, notLetIn, ""},
		{other, "boss", nil, client, notLetIn, ""},
	} {
		c, k := tt.by.issue(t, tt.cn, tt.uris, tt.use)
		key, err := create(t, o.client(t, c, k), fmt.Sprintf("k%d", i))
		switch {
		case tt.code == 0 && (err != nil || key.GetCreator() != tt.actor),
			tt.code == notLetIn && (err == nil || connect.CodeOf(err) == connect.CodePermissionDenied),
			tt.code == connect.CodePermissionDenied && connect.CodeOf(err) != tt.code:
			t.Errorf("%s %v: %v, %v", tt.cn, tt.uris, key, err)
		}
	}
	if _, err := create(t, o.client(t, nil, nil), "none"); err == nil {
		t.Error("without a certificate")
	}
	boss, bossKey := o.ca.issue(t, "boss", nil, client)
	if _, err := create(t, o.client(t, boss, bossKey, "Bearer x"), "token"); connect.CodeOf(err) != connect.CodeUnauthenticated {
		t.Errorf("a token where none are accepted: %v", err)
	}
	testChange(t, o, o.client(t, boss, bossKey), other)
}

// A change of who may call holds for connections that are open.
func testChange(t *testing.T, o *overTLS, open adminv1connect.KeyServiceClient, other *authority) {
	if _, err := create(t, open, "before"); err != nil {
		t.Fatal(err)
	}
	demoted := *o.api
	demoted.Clients = []plan.AdminClient{{CommonName: "boss", Roles: []string{Viewer}}}
	if err := o.server.Use(&demoted); err != nil {
		t.Fatal(err)
	}
	if _, err := create(t, open, "demoted"); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("after the role was taken: %v", err)
	}
	moved := *o.api
	moved.ClientCAs = other.pem
	if err := o.server.Use(&moved); err != nil {
		t.Fatal(err)
	}
	if _, err := create(t, open, "moved"); connect.CodeOf(err) != connect.CodeUnauthenticated {
		t.Errorf("after the authority was changed: %v", err)
	}
	if err := o.server.Use(nil); err != nil {
		t.Fatal(err)
	}
	if _, err := create(t, open, "gone"); connect.CodeOf(err) != connect.CodeUnauthenticated {
		t.Errorf("after the API was taken out of the configuration: %v", err)
	}
	if err := o.server.Use(o.api); err != nil {
		t.Fatal(err)
	}
	if _, err := create(t, open, "after"); err != nil {
		t.Errorf("and back: %v", err)
	}
}

// signed is a token with these claims.
func signed(t *testing.T, alg jose.SignatureAlgorithm, key any, claims map[string]any) string {
	t.Helper()
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, nil)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Signed(s).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// Tokens: which hold, and that none of the known tricks does.
func TestTokens(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	edPublic, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, strange, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	o := serveTLS(t, func(p *plan.AdminAPI, _ *authority) {
		p.OIDC = &plan.AdminOIDC{
			Issuer: "https://id.example.org", Audience: "weir", Keys: []crypto.PublicKey{&rsaKey.PublicKey, &ecKey.PublicKey, edPublic},
			Grants: []plan.AdminClaim{{Claim: "groups", Value: "ops", Roles: []string{Operator}}, {Claim: "department", Value: "it", Roles: []string{Viewer}}},
		}
	})
	now := time.Now()
	claims := func(edits ...any) map[string]any {
		m := map[string]any{"iss": "https://id.example.org", "aud": "weir", "sub": "alice", "exp": now.Add(time.Hour).Unix(), "groups": []string{"staff", "ops"}}
		for i := 0; i+1 < len(edits); i += 2 {
			if edits[i+1] == nil {
				delete(m, edits[i].(string))
				continue
			}
			m[edits[i].(string)] = edits[i+1]
		}
		return m
	}
	ed := func(edits ...any) string { return signed(t, jose.EdDSA, edKey, claims(edits...)) }
	rsaPublic := x509.MarshalPKCS1PublicKey(&rsaKey.PublicKey)
	good := ed()
	parts := strings.Split(good, ".")
	none := "eyJhbGciOiJub25lIn0." + parts[1] + "."
	const refused = connect.CodeUnauthenticated
	for name, tt := range map[string]struct {
		authorization []string
		code          connect.Code // 0: it may
	}{
		"RS256":                {[]string{"Bearer " + signed(t, jose.RS256, rsaKey, claims())}, 0},
		"ES256":                {[]string{"Bearer " + signed(t, jose.ES256, ecKey, claims())}, 0},
		"EdDSA":                {[]string{"bearer " + good}, 0},
		"aud is a list":        {[]string{"Bearer " + ed("aud", []string{"other", "weir"})}, 0},
		"group is a text":      {[]string{"Bearer " + ed("groups", "ops")}, 0},
		"viewer":               {[]string{"Bearer " + ed("groups", "staff", "department", "it")}, connect.CodePermissionDenied},
		"no group":             {[]string{"Bearer " + ed("groups", nil)}, connect.CodePermissionDenied},
		"group like it":        {[]string{"Bearer " + ed("groups", "ops,staff")}, connect.CodePermissionDenied},
		"groups are a mapping": {[]string{"Bearer " + ed("groups", map[string]any{"ops": true})}, connect.CodePermissionDenied},
		"groups are mixed":     {[]string{"Bearer " + ed("groups", []any{"ops", 1})}, connect.CodePermissionDenied},
		"none":                 {[]string{"Bearer " + none}, refused},
		"HS256, public key":    {[]string{"Bearer " + signed(t, jose.HS256, rsaPublic, claims())}, refused},
		"a stranger's key":     {[]string{"Bearer " + signed(t, jose.EdDSA, strange, claims())}, refused},
		"changed":              {[]string{"Bearer " + parts[0] + "." + strings.ToUpper(parts[1]) + "." + parts[2]}, refused},
		"expired":              {[]string{"Bearer " + ed("exp", now.Add(-time.Second).Unix())}, refused},
		"without expiry":       {[]string{"Bearer " + ed("exp", nil)}, refused},
		"not yet":              {[]string{"Bearer " + ed("nbf", now.Add(time.Hour).Unix())}, refused},
		"other issuer":         {[]string{"Bearer " + ed("iss", "https://id.example.org/")}, refused},
		"other audience":       {[]string{"Bearer " + ed("aud", "other")}, refused},
		"no audience":          {[]string{"Bearer " + ed("aud", nil)}, refused},
		"no subject":           {[]string{"Bearer " + ed("sub", nil)}, refused},
		"twice":                {[]string{"Bearer " + good, "Bearer " + good}, refused},
		"basic":                {[]string{"Basic " + good}, refused},
		"too long":             {[]string{"Bearer " + ed("pad", strings.Repeat("x", 17<<10))}, refused},
		"nothing":              {nil, refused},
		"garbage":              {[]string{"Bearer ..."}, refused},
	} {
		key, err := create(t, o.client(t, nil, nil, tt.authorization...), "k"+fmt.Sprintf("%x", name))
		if tt.code == 0 && (err != nil || key.GetCreator() != "oidc:https://id.example.org#alice") || tt.code != 0 && connect.CodeOf(err) != tt.code {
			t.Errorf("%s: %v, %v", name, key, err)
		}
		if tt.code == refused && err != nil && !strings.Contains(err.Error(), "did not prove who it is") {
			t.Errorf("%s: the caller is told %v", name, err)
		}
	}
	if strings.Contains(o.log.String(), parts[2]) {
		t.Error("a token is in the log")
	}
}

// provider answers with a JWKS, as a provider's server would.
type provider struct {
	set   jose.JSONWebKeySet
	moved string // where it redirects to
	asked atomic.Int32
}

func (p *provider) RoundTrip(r *http.Request) (*http.Response, error) {
	p.asked.Add(1)
	w := httptest.NewRecorder()
	switch {
	case p.moved != "" && r.URL.Path == "/keys":
		http.Redirect(w, r, p.moved, http.StatusFound)
	case len(p.set.Keys) == 0:
		return nil, errors.New("nobody answers")
	default:
		_ = json.NewEncoder(w).Encode(p.set)
	}
	resp := w.Result()
	resp.Request = r
	return resp, nil
}

// Keys of a provider are fetched when they are needed, over https alone, and not as
// often as somebody likes to ask.
func TestRemoteKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		public, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		p := &provider{}
		v, err := newVerifier(&plan.AdminAPI{TLS: servingCertificate(t), OIDC: &plan.AdminOIDC{
			Issuer: "i", Audience: "a", JWKSURL: "https://id.example.org/keys", Grants: []plan.AdminClaim{{Claim: "g", Value: "v", Roles: []string{Viewer}}},
		}}, p)
		if err != nil {
			t.Fatal(err)
		}
		token := signed(t, jose.EdDSA, private, map[string]any{"iss": "i", "aud": "a", "sub": "s", "g": "v", "exp": time.Now().Add(time.Hour).Unix()})
		ask := func() error {
			a, err := v.byToken(t.Context(), "Bearer "+token)
			if err == nil && !slices.Equal(a.Roles, []string{Viewer}) {
				err = fmt.Errorf("%+v", a)
			}
			return err
		}
		for range 10 {
			if err := ask(); err == nil {
				t.Fatal("without a provider")
			}
		}
		if n := p.asked.Load(); n != 1 {
			t.Errorf("a provider that is away is asked %d times at once", n)
		}
		p.moved = "http://id.example.org/elsewhere"
		p.set.Keys = []jose.JSONWebKey{{Key: public, Algorithm: string(jose.EdDSA), Use: "sig"}}
		time.Sleep(6 * time.Second)
		if err := ask(); err == nil {
			t.Error("keys came in the clear")
		}
		p.moved = "https://id.example.org/elsewhere"
		time.Sleep(6 * time.Second)
		for range 10 {
			if err := ask(); err != nil {
				t.Errorf("with the keys: %v", err)
			}
		}
		if n := p.asked.Load(); n != 4 {
			t.Errorf("the provider was asked %d times", n)
		}
	})
}

func servingCertificate(t *testing.T) *plan.ServerTLS {
	t.Helper()
	certificate, key := newAuthority(t).issue(t, "weir", nil, x509.ExtKeyUsageServerAuth)
	return &plan.ServerTLS{CertificateChain: certificate, PrivateKey: key}
}

// A token brings its own roles, not those of the certificate beside it.
func TestTokenBesideCertificate(t *testing.T) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	o := serveTLS(t, func(p *plan.AdminAPI, ca *authority) {
		p.ClientCAs, p.Clients = ca.pem, []plan.AdminClient{{CommonName: "boss", Roles: []string{Operator}}}
		p.OIDC = &plan.AdminOIDC{Issuer: "i", Audience: "a", Keys: []crypto.PublicKey{public}, Grants: []plan.AdminClaim{{Claim: "g", Value: "v", Roles: []string{Viewer}}}}
	})
	token := "Bearer " + signed(t, jose.EdDSA, private, map[string]any{"iss": "i", "aud": "a", "sub": "s", "g": "v", "exp": time.Now().Add(time.Hour).Unix()})
	c, k := o.ca.issue(t, "boss", nil, x509.ExtKeyUsageClientAuth)
	if _, err := create(t, o.client(t, c, k, token), "both"); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("with both: %v", err)
	}
	if _, err := create(t, o.client(t, c, k), "certificate"); err != nil {
		t.Errorf("with the certificate: %v", err)
	}
	if _, err := o.client(t, nil, nil, token).ListKeys(t.Context(), connect.NewRequest(&adminv1.ListKeysRequest{})); err != nil {
		t.Errorf("with the token: %v", err)
	}
	var pe *connect.Error
	if _, err := create(t, o.client(t, nil, nil), "nothing"); !errors.As(err, &pe) || pe.Code() != connect.CodeUnauthenticated {
		t.Errorf("with nothing: %v", err)
	}
}

func FuzzClaimHas(f *testing.F) {
	for _, seed := range []string{`"v"`, `["v"]`, `["a","v"]`, `null`, `{"v":1}`, `[null]`, `[["v"]]`, ``, `"`, `[1,"v"]`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, claim []byte) {
		if claimHas(claim, "v") && !strings.Contains(string(claim), "v") && !strings.Contains(strings.ToLower(string(claim)), `\u0076`) {
			t.Errorf("%q has it", claim)
		}
	})
}
