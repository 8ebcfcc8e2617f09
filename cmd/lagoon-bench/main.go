package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"lagoon/internal/lab"
)

// The exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
	exitCheck  = 3
)

func main() {
	if code, helper := lab.RunHelper(); helper {
		os.Exit(code)
	}
	// The first Ctrl-C ends the run, which removes what it made; a second one ends the process.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	a := &app{stdout: os.Stdout, stderr: os.Stderr}
	os.Exit(a.main(ctx, os.Args[1:]))
}

// app is one run of the command.
type app struct {
	stdout, stderr io.Writer
}

// usageError is the caller's mistake; checkError is a broker that did not keep its word, after it was printed how.
type (
	usageError struct{ err error }
	checkError struct{ err error }
)

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }
func (e checkError) Error() string { return e.err.Error() }
func (e checkError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// main runs the command and turns its error into lines and an exit code.
func (a *app) main(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	for line := range strings.Lines(err.Error()) {
		if line = strings.TrimSpace(line); line != "" {
			fmt.Fprintln(a.stderr, "lagoon-bench: "+line)
		}
	}
	var (
		usage usageError
		check checkError
	)
	switch {
	case errors.As(err, &check):
		return exitCheck
	case errors.As(err, &usage), strings.HasPrefix(err.Error(), "unknown command"):
		return exitUsage
	default:
		return exitFailed
	}
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "lagoon-bench",
		Short: "Measures what a backlog does to the real-time path of any Kafka-compatible broker",
		Long: `Measures what a backlog does to the real-time path of any Kafka-compatible broker.

  lagoon-bench lab up --device H --broker lagoon
  lagoon-bench isolation --brokers localhost:9092 --quick
  lagoon-bench compare lagoon.json kafka.json
  lagoon-bench throughput --brokers localhost:9092
  lagoon-bench partitions --brokers localhost:9092

Exit codes: 0 done, 1 failed or interrupted, 2 wrong usage, 3 the broker lost, repeated, reordered or damaged records.`,
		SilenceErrors: true, SilenceUsage: true,
	}
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usagef("%w (see %s --help)", err, c.CommandPath())
	})
	root.AddCommand(a.isolationCommand(), a.compareCommand(), a.throughputCommand(), a.partitionsCommand())
	root.AddCommand(a.labCommand(), a.readpathCommand(), a.sinkCommand())
	return root
}
