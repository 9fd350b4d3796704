package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weirproxy/weir/internal/config"
	"github.com/weirproxy/weir/internal/plan"
)

func newKeyHash() *cobra.Command {
	var file, data, secretEnv, secretFile string
	var generate bool
	cmd := &cobra.Command{
		Use:   "hash",
		Short: "Print the keyed hash of an API key, for the configuration",
		Long: `Read an API key from stdin and print its keyed hash, as keys[].hash wants it.
The hash is made with the configuration's key_hash_secret: name the configuration with
--config, or the secret itself with --secret-env or --secret-file. With --generate a new
random key is made and printed too; it is shown this once and kept nowhere.`,
		Example: `  printf %s "$KEY" | weir key hash --config weir.yaml
  weir key hash --generate --config weir.yaml
  weir key hash --generate --secret-env WEIR_KEY_HASH_SECRET`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			secret, err := hashSecret(cmd, file, data, secretEnv, secretFile)
			if err != nil {
				return err
			}
			if generate {
				key, err := config.NewKey()
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "key:  %s\nhash: %s\n", key, config.HashLine(secret, key))
				return nil
			}
			line, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
			key := strings.TrimRight(line, "\r\n")
			switch {
			case err != nil && !errors.Is(err, io.EOF):
				return fmt.Errorf("stdin: %w", err)
			case key == "":
				return misuse(cmd, errors.New("no key on stdin"))
			case plan.Malformed(key):
				return errors.New("the key begins with weir_ and its checksum is wrong, or it is far too long: it would always be refused")
			}
			fmt.Fprintln(cmd.OutOrStdout(), config.HashLine(secret, key))
			return nil
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "configuration whose key_hash_secret is used")
	cmd.Flags().StringVar(&data, "data", "", "data directory with generated secrets")
	cmd.Flags().StringVar(&secretEnv, "secret-env", "", "environment variable with the secret of the hash")
	cmd.Flags().StringVar(&secretFile, "secret-file", "", "file with the secret of the hash")
	cmd.Flags().BoolVar(&generate, "generate", false, "make a new random key")
	cmd.MarkFlagsMutuallyExclusive("config", "secret-env", "secret-file")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml")
	return cmd
}

// configHashSecret is the secret that a weir with this configuration uses. When
// it has to be made first, that is said: in another data directory than weir's
// own it would be another secret, and the hash would never match.
func configHashSecret(cmd *cobra.Command, file, data string) ([]byte, error) {
	o := config.Options{DataDir: data, ReadOnly: true}
	secret, err := config.HashSecret(file, o)
	if !errors.Is(err, config.ErrNoHashSecret) {
		return secret, err
	}
	o.ReadOnly = false
	if secret, err = config.HashSecret(file, o); err == nil {
		fmt.Fprintln(cmd.ErrOrStderr(), "weir: a new secret for key hashes was made in the data directory; start weir with the same one (--data), or no key will match")
	}
	return secret, err
}

func hashSecret(cmd *cobra.Command, file, data, env, secretFile string) ([]byte, error) {
	switch {
	case env != "":
		if v := os.Getenv(env); v != "" {
			return []byte(v), nil
		}
		return nil, fmt.Errorf("--secret-env: %s is not set", env)
	case secretFile != "":
		b, err := os.ReadFile(secretFile)
		if err != nil {
			return nil, fmt.Errorf("--secret-file: %w", err)
		}
		if s := strings.TrimRight(string(b), "\r\n"); s != "" {
			return []byte(s), nil
		}
		return nil, fmt.Errorf("--secret-file: %s is empty", secretFile)
	case file != "":
		return configHashSecret(cmd, file, data)
	}
	return nil, misuse(cmd, errors.New("one of --config, --secret-env and --secret-file is needed"))
}
