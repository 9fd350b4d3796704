package config

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/weirproxy/weir/internal/plan"
	configv1 "github.com/weirproxy/weir/proto/weir/config/v1"
)

const maxSecretBytes = 64 << 10

// secret is a resolved reference.
type secret struct {
	value string
	// shown tells that weir generated it and that it is kept.
	shown bool
}

// secrets resolves references, each generated name once.
type secrets struct {
	Options
	report    *report
	configDir string
	dataDir   string
	generated map[string]secret
	// absent tells that a generated secret does not exist yet and was stood in for.
	absent bool
}

// resolve reads the secret that the field at path refers to. A fault is
// reported, and ok is false.
func (s *secrets) resolve(path string, ref *configv1.SecretRef) (secret, bool) {
	switch source := ref.GetSource().(type) {
	case *configv1.SecretRef_Env:
		return s.fromEnv(path+".env", source.Env)
	case *configv1.SecretRef_File:
		return s.fromFile(path+".file", relativeTo(s.configDir, source.File))
	case *configv1.SecretRef_Generated:
		return s.generate(path+".generated", source.Generated)
	}
	return secret{}, false // the schema's rules reported it
}

func (s *secrets) fromEnv(path, name string) (secret, bool) {
	if name == "" {
		return secret{}, false
	}
	value, set := s.Getenv(name)
	switch {
	case !set:
		s.report.fault(path, "environment variable %s is not set", name)
	case value == "":
		s.report.fault(path, "environment variable %s is empty", name)
	default:
		return secret{value: value}, true
	}
	return secret{}, false
}

func (s *secrets) fromFile(path, name string) (secret, bool) {
	content, err := readFile(name, maxSecretBytes+1)
	if err != nil {
		s.report.fault(path, "%s", reasonOf(err))
		return secret{}, false
	}
	value := strings.TrimSuffix(strings.TrimSuffix(string(content), "\n"), "\r")
	switch {
	case len(content) > maxSecretBytes:
		s.report.fault(path, "%s is larger than %d KiB", name, maxSecretBytes>>10)
	case value == "":
		s.report.fault(path, "%s is empty", name)
	default:
		if info, err := os.Stat(name); err == nil && info.Mode().Perm()&0o004 != 0 {
			s.report.warn(path, "%s can be read by every user of this machine", name)
		}
		return secret{value: value}, true
	}
	return secret{}, false
}

var generatedName = regexp.MustCompile(namePattern)

// generate reads the named secret of the data directory, and creates it first
// if it does not exist.
func (s *secrets) generate(path, name string) (secret, bool) {
	if !generatedName.MatchString(name) {
		return secret{}, false // the schema's rules reported it; it must not become a file name
	}
	if known, ok := s.generated[name]; ok {
		return known, true
	}
	file := filepath.Join(s.dataDir, "secrets", name)
	_, err := os.Lstat(file)
	var made secret
	switch {
	case err == nil:
		var ok bool
		if made, ok = s.fromFile(path, file); !ok {
			return secret{}, false
		}
		made.shown = true
	case s.ReadOnly:
		s.absent = true
		made.value, err = plan.NewToken(s.Rand)
	case errors.Is(err, fs.ErrNotExist):
		made.shown = true
		made.value, err = createSecret(s.Rand, file)
	}
	if err != nil {
		s.report.fault(path, "cannot create it: %s", reasonOf(err))
		return secret{}, false
	}
	s.generated[name] = made
	return made, true
}

// createSecret makes a new secret and writes it to the file, which never exists
// half-written. If another process makes it first, that one's secret counts.
func createSecret(random io.Reader, file string) (string, error) {
	value, err := plan.NewToken(random) // whatever it is for: a scanner finds it where it should not be
	if err != nil {
		return "", err
	}
	dir := filepath.Dir(file)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	f, err := os.CreateTemp(dir, ".new-*") // mode 0600
	if err != nil {
		return "", err
	}
	defer func() { _ = os.Remove(f.Name()) }() // the link stays
	_, err = f.WriteString(value + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return "", err
	}
	if err := os.Link(f.Name(), file); errors.Is(err, fs.ErrExist) {
		content, err := readFile(file, maxSecretBytes)
		return strings.TrimSuffix(string(content), "\n"), err
	} else if err != nil {
		return "", err
	}
	return value, syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// reasonOf is a file error with its path and its cause, without the name of the
// system call.
func reasonOf(err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		return fmt.Sprintf("%s: %v", p.Path, p.Err)
	}
	return err.Error()
}

// hashPrefix names the keyed hash in a key's hash line.
const hashPrefix = "hmac-sha256:"

// HashLine is the keyed hash of an API key as it stands in a configuration.
func HashLine(secret []byte, key string) string {
	h := plan.HashKey(secret, key)
	return hashPrefix + hex.EncodeToString(h[:])
}

// ParseHash reads what HashLine wrote.
func ParseHash(line string) (plan.KeyHash, error) {
	hexadecimal, ok := strings.CutPrefix(line, hashPrefix)
	b, err := hex.DecodeString(hexadecimal)
	if !ok || err != nil || len(b) != sha256.Size {
		return plan.KeyHash{}, fmt.Errorf("want %s and %d hexadecimal digits", hashPrefix, 2*sha256.Size)
	}
	return plan.KeyHash(b), nil
}

// NewKey makes a random API key.
func NewKey() (string, error) { return plan.NewToken(rand.Reader) }
