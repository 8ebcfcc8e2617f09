package main

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/spf13/cobra"

	"lagoon/conf"
	"lagoon/internal/bench/readpath"
)

func (a *app) readpathCommand() *cobra.Command {
	o := readpath.Options{}
	var sizes []string
	var file string
	c := &cobra.Command{
		Use:   "readpath",
		Short: "What each way from a file to a socket costs on this machine",
		Long: `What each way from a file to a socket costs on this machine, by size, with the bytes in the page cache and not.

One thread reads a file in order and sends it over a loopback connection to another process, which drops it. Processor time is that
thread's, with what the kernel does in it; loopback's receiving half is part of that, a network card's is not. "left" is the share of
the bytes that are in the page cache afterwards: a way that is meant to leave the cache alone should show 0 % for cold bytes and 100 %
for warm ones.

  read        pread, write
  mmap        write from a mapping
  sendfile    sendfile
  splice      file to pipe to socket
  direct      pread with O_DIRECT, write
  dontcache   preadv2 with RWF_DONTCACHE, write
  dontneed    pread, write, FADV_DONTNEED of what was read`,
		Example: "  lagoon-bench readpath --dir /srv/lagoon/ssd --json readpath.json",
		Args:    cobra.NoArgs,
	}
	f := c.Flags()
	f.SortFlags = false
	f.StringVar(&o.Dir, "dir", os.TempDir(), "folder on the file system to measure; a file is made there and removed")
	sizeFlag(f, &o.FileBytes, "file-size", 256<<20, "of that file")
	f.StringSliceVar(&sizes, "sizes", []string{"4KiB", "16KiB", "64KiB", "256KiB", "1MiB", "4MiB"}, "bytes of one read and send")
	f.StringSliceVar(&o.Methods, "methods", readpath.Methods(), "the ways, by name")
	durationFlag(f, &o.Cell, "cell", 500*time.Millisecond, "longest time per figure; the best of 3 is shown")
	f.StringVar(&file, "json", "", "file for the result as JSON")
	c.RunE = func(c *cobra.Command, _ []string) error {
		for _, s := range sizes {
			n, err := conf.ParseBytes(s)
			if err != nil {
				return usagef("--sizes: %w", err)
			}
			o.Sizes = append(o.Sizes, int64(n))
		}
		if err := errors.Join(o.Validate(), writable(file)); err != nil {
			return usageError{err}
		}
		exe, err := os.Executable()
		if err != nil {
			return err
		}
		o.Sink = []string{exe, sinkCommand}
		return a.readpath(c.Context(), o, file)
	}
	return c
}

// sinkCommand is the receiving process of readpath.
const sinkCommand = "readpath-sink"

func (a *app) sinkCommand() *cobra.Command {
	return &cobra.Command{
		Use: sinkCommand + " ADDRESS", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return readpath.Sink(args[0]) },
	}
}

func (a *app) readpath(ctx context.Context, o readpath.Options, file string) error {
	result, err := readpath.Run(ctx, o)
	if err != nil {
		return err
	}
	if err := result.Text(a.stdout); err != nil || file == "" {
		return err
	}
	return writeJSON(file, result)
}
