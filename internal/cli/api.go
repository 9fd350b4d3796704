package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"github.com/weirproxy/weir/internal/app"
)

// apiFlags say where the admin API is and who asks.
type apiFlags struct {
	data, config                    string
	url, tokenFile, ca, cert, certK string
}

func (f *apiFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.config, "config", "", "configuration that names the data directory of the running weir")
	flags.StringVar(&f.data, "data", "", "data directory of the running weir (default: ./"+app.DefaultDataDir+")")
	flags.StringVar(&f.url, "api", "", "https URL of a weir's admin API (admin.api of its configuration), in place of the data directory")
	flags.StringVar(&f.tokenFile, "token-file", "", "file with an OIDC token for --api")
	flags.StringVar(&f.cert, "tls-cert", "", "client certificate for --api (PEM)")
	flags.StringVar(&f.certK, "tls-key", "", "private key for --tls-cert (PEM)")
	flags.StringVar(&f.ca, "tls-ca", "", "authorities that the API's certificate is verified by (PEM; default: the system's)")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml")
	_ = cmd.MarkFlagDirname("data")
}

// apiTimeout bounds a call: the API answers at once or not at all.
const apiTimeout = 30 * time.Second

// client is how to reach the API: what calls take, and the base URL.
func (f *apiFlags) client(cmd *cobra.Command) (*http.Client, string, error) {
	if f.url == "" {
		if f.tokenFile != "" || f.cert != "" || f.certK != "" || f.ca != "" {
			return nil, "", misuse(cmd, errors.New("--token-file and --tls-… belong to --api"))
		}
		return f.socket()
	}
	return f.remote(cmd)
}

func (f *apiFlags) socket() (*http.Client, string, error) {
	dir, err := dataDir(f.data, f.config)
	if err != nil {
		return nil, "", err
	}
	path, err := app.AdminSocket(dir)
	if err != nil {
		return nil, "", fmt.Errorf("data directory: %w (name that of the running weir with --data)", err)
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, "unix", path)
		if err != nil {
			return nil, fmt.Errorf("no weir runs on the data directory %s: %w (start it, or name another with --data or --api)", dir, err)
		}
		return c, nil
	}
	return &http.Client{Timeout: apiTimeout, Transport: &http.Transport{DialContext: dial}}, "http://weir", nil
}

func (f *apiFlags) remote(cmd *cobra.Command) (*http.Client, string, error) {
	switch {
	case f.data != "" || f.config != "":
		return nil, "", misuse(cmd, errors.New("--api names another weir than --data and --config: one or the other"))
	case (f.cert == "") != (f.certK == ""):
		return nil, "", misuse(cmd, errors.New("--tls-cert and --tls-key belong together"))
	}
	u, err := url.Parse(f.url)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
		return nil, "", misuse(cmd, errors.New("--api: want a URL, as https://weir.example.org:10443"))
	}
	config := &tls.Config{MinVersion: tls.VersionTLS13}
	if f.ca != "" {
		pem, err := os.ReadFile(f.ca)
		if err != nil {
			return nil, "", fmt.Errorf("--tls-ca: %w", err)
		}
		if config.RootCAs = x509.NewCertPool(); !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, "", fmt.Errorf("--tls-ca: %s holds no certificate", f.ca)
		}
	}
	if f.cert != "" {
		pair, err := tls.LoadX509KeyPair(f.cert, f.certK)
		if err != nil {
			return nil, "", fmt.Errorf("--tls-cert: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	var transport http.RoundTripper = &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true, Proxy: http.ProxyFromEnvironment}
	if f.tokenFile != "" {
		token, err := os.ReadFile(f.tokenFile)
		if err != nil {
			return nil, "", fmt.Errorf("--token-file: %w", err)
		}
		transport = bearer{strings.TrimSpace(string(token)), transport}
	}
	// A redirect would take the token elsewhere.
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &http.Client{Timeout: apiTimeout, Transport: transport, CheckRedirect: stay}, strings.TrimSuffix(f.url, "/"), nil
}

// bearer adds the token to each request.
type bearer struct {
	token string
	next  http.RoundTripper
}

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+b.token)
	return b.next.RoundTrip(r) //nolint:wrapcheck // a transport
}

// plainly takes an error of the API without the words of the protocol.
func plainly(err error) error {
	var api *connect.Error
	if !errors.As(err, &api) {
		return err
	}
	var dial *url.Error // of a call that never arrived
	if errors.As(err, &dial) {
		return dial.Err
	}
	switch api.Code() {
	case connect.CodePermissionDenied:
		return fmt.Errorf("denied: %s", api.Message())
	case connect.CodeUnauthenticated:
		return fmt.Errorf("not authenticated: %s", api.Message())
	}
	return errors.New(api.Message())
}
