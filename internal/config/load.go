package config

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/weirproxy/weir/internal/plan"
	configv1 "github.com/weirproxy/weir/proto/weir/config/v1"
)

// Options are what a configuration is compiled with. The zero value is that of
// a running weir.
type Options struct {
	// DataDir overrides data_dir.
	DataDir string
	// ReadOnly validates without creating anything: a generated secret that does
	// not exist yet is stood in for by a random one that is not kept.
	ReadOnly bool
	// Warn is told, in the order of the text, what is allowed and probably not
	// meant. It may be nil.
	Warn func(Fault)
	// Getenv reads an environment variable. Default: os.LookupEnv
	Getenv func(name string) (string, bool)
	// Rand is the source of generated secrets. Default: crypto/rand
	Rand io.Reader
	// Now is the time by which certificates are judged. Default: time.Now
	Now func() time.Time
}

func (o Options) withDefaults() Options {
	if o.Getenv == nil {
		o.Getenv = os.LookupEnv
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Warn == nil {
		o.Warn = func(Fault) {}
	}
	return o
}

// Load reads, checks and compiles the configuration file. What is wrong with it
// is a Faults error, complete.
func Load(path string, o Options) (*plan.Plan, error) {
	text, err := Text(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, text, o)
}

// Text reads a configuration file as it is written. An error is Faults.
func Text(path string) ([]byte, error) {
	text, err := readFile(path, maxFileBytes+1)
	if err != nil {
		return nil, Faults{{File: path, Message: reasonOf(err)}}
	}
	return text, nil
}

// Parse is Load for a text that was read already; path names it in faults, and
// its directory is where relative file references begin.
func Parse(path string, text []byte, o Options) (*plan.Plan, error) {
	o = o.withDefaults()
	// The first pass creates nothing, so that a faulty file leaves no trace.
	dry := o
	dry.ReadOnly = true
	c, r := compile(path, text, dry)
	if !o.ReadOnly && len(r.faults) == 0 && c.secrets.absent {
		c, r = compile(path, text, o)
	}
	for _, w := range r.warnings.sorted() {
		o.Warn(w)
	}
	if len(r.faults) > 0 {
		return nil, r.faults.sorted()
	}
	return c.out, nil
}

// compile is one pass; the compilation is nil if the text is not even YAML.
func compile(path string, text []byte, o Options) (*compilation, *report) {
	cfg, r := read(path, text)
	if cfg == nil {
		return nil, r
	}
	c := newCompilation(cfg, r, o)
	c.run()
	return c, r
}

// read turns the text into the schema's message; nil if it is not even YAML.
func read(path string, text []byte) (*configv1.Config, *report) {
	schema := (&configv1.Config{}).ProtoReflect().Descriptor()
	doc, r := parseDocument(path, text, schema)
	if doc.root == nil {
		return nil, r
	}
	return decode(r), r
}

// ErrNoHashSecret says that the secret of key hashes is a generated one that
// does not exist yet.
var ErrNoHashSecret = errors.New("the secret of key hashes does not exist yet")

// HashSecret is the secret under which the configuration stores keys. A generated
// one that does not exist yet is created; with ReadOnly it is ErrNoHashSecret.
func HashSecret(path string, o Options) ([]byte, error) {
	text, err := readFile(path, maxFileBytes+1)
	if err != nil {
		return nil, Faults{{File: path, Message: reasonOf(err)}}
	}
	cfg, r := read(path, text)
	if cfg == nil {
		return nil, r.faults
	}
	// Only the secret is needed: other faults are not in the way.
	r.faults = nil
	c := newCompilation(cfg, r, o.withDefaults())
	secret := c.hashSecret()
	if c.secrets.absent {
		return nil, ErrNoHashSecret
	}
	if len(r.faults) > 0 {
		return nil, r.faults
	}
	return secret, nil
}

// Files are the files that the configuration at path refers to, itself first.
// A configuration that cannot be read refers to itself alone.
func Files(path string) []string {
	files := []string{path}
	text, err := readFile(path, maxFileBytes+1)
	if err != nil {
		return files
	}
	return append(files, NamedFiles(path, text)...)
}

// NamedFiles are the files that a text refers to which stands for the configuration at
// path.
func NamedFiles(path string, text []byte) (files []string) {
	cfg, _ := read(path, text)
	dir := filepath.Dir(path)
	add := func(names ...string) {
		for _, name := range names {
			if name != "" {
				files = append(files, relativeTo(dir, name))
			}
		}
	}
	add(cfg.GetKeyHashSecret().GetFile())
	for _, l := range cfg.GetListeners() {
		add(l.GetTls().GetCertificateFile(), l.GetTls().GetPrivateKeyFile(), l.GetTls().GetClientCaFile())
	}
	api := cfg.GetAdmin().GetApi()
	add(api.GetTls().GetCertificateFile(), api.GetTls().GetPrivateKeyFile(), api.GetClientCaFile(), api.GetOidc().GetJwksFile())
	for _, p := range cfg.GetPools() {
		add(p.GetCredential().GetSecret().GetFile(), p.GetTls().GetCaFile(), p.GetTokenizer().GetFile())
	}
	for _, t := range cfg.GetTokenIssuers() {
		add(t.GetJwksFile(), t.GetJwks().GetCaFile())
	}
	for _, k := range cfg.GetKeys() {
		add(k.GetSecret().GetFile())
	}
	add(cfg.GetDoctor().GetCertificate().GetCertificateFile(), cfg.GetDoctor().GetCertificate().GetPrivateKeyFile())
	for _, p := range cfg.GetDoctor().GetProxies() {
		add(p.GetCaFile())
	}
	return files
}

func relativeTo(dir, name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(dir, name)
}

// readFile reads a regular file of at most limit bytes; more is cut off.
func readFile(path string, limit int64) ([]byte, error) {
	// Opening a pipe would wait for its writer, so look first.
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // nothing was written
	return io.ReadAll(io.LimitReader(f, limit))
}
