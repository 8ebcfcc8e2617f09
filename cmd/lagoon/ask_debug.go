package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// bundleTimeout is more than the daemon takes.
const bundleTimeout = 2 * time.Minute

func (a *app) debugCommand() *cobra.Command {
	return group(&cobra.Command{Use: "debug", Short: "What somebody needs who looks into a problem"}, a.debugBundleCommand())
}

func (a *app) debugBundleCommand() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use: "bundle", Short: "One file with all that the daemon tells about itself", Args: args(),
		Long: `One file with all that the daemon tells about itself: status, configuration, readers, throttle, tiers, migrations, compactions, cache,
metrics, goroutines, heap, the end of its log, and what it relies on in the kernel. It holds no records and no secrets, but names of topics,
groups, clients and their addresses. What does not answer is left out, with the reason in NAME.error.`,
		RunE: func(c *cobra.Command, _ []string) error {
			if file == "" {
				file = "lagoon-debug-" + time.Now().UTC().Format("20060102T150405Z") + ".tar.gz"
			}
			return a.saveBundle(c.Context(), file)
		},
	}
	// Instead of the format that other commands print in: there is only one.
	c.Flags().StringVarP(&file, "output", "o", "", "file to write, which must not be there; - is the terminal's or pipe's end (default lagoon-debug-TIME.tar.gz)")
	return c
}

func (a *app) saveBundle(ctx context.Context, file string) error {
	ctx, cancel := context.WithTimeout(ctx, bundleTimeout)
	defer cancel()
	resp, body, err := a.call(ctx, http.MethodGet, "/api/v1/debug/bundle", nil, nil)
	if err != nil {
		return err
	}
	if resp.StatusCode >= 400 {
		return problemError(resp, body)
	}
	names, failed, err := readBundle(body)
	if file == "-" {
		_, werr := a.stdout.Write(body)
		return errors.Join(err, werr)
	}
	if werr := writeNew(file, body); werr != nil {
		return werr
	}
	if err != nil {
		return fmt.Errorf("%s is not whole: %w", file, err)
	}
	fmt.Fprintf(a.stdout, "%s: %d files, %s\n", file, names, size(int64(len(body))))
	if len(failed) > 0 {
		fmt.Fprintf(a.stdout, "not told, or not wholly: %s\n", clean(strings.Join(failed, ", ")))
	}
	return nil
}

// readBundle counts the files of a bundle and names the parts that failed.
func readBundle(body []byte) (names int, failed []string, err error) {
	zip, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	for files := tar.NewReader(zip); ; names++ {
		h, err := files.Next()
		if errors.Is(err, io.EOF) {
			return names, failed, nil
		}
		if err != nil {
			return names, failed, err
		}
		_, name, _ := strings.Cut(filepath.Clean(h.Name), "/")
		if part, ok := strings.CutSuffix(name, ".error"); ok {
			failed = append(failed, part)
		}
	}
}

// writeNew writes a file for its owner only. What is there already is not overwritten.
func writeNew(name string, body []byte) (err error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return usagef("%s is there already: choose another file with -o", name)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = f.Write(body)
	return err
}
