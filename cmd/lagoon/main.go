package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// The exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
	exitCheck  = 3
)

func main() {
	a := &app{
		stdout: os.Stdout, stderr: os.Stderr, environ: os.Environ(),
		color: term.IsTerminal(int(os.Stdout.Fd())) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb",
	}
	os.Exit(a.main(context.Background(), os.Args[1:]))
}

// app is one run of the command.
type app struct {
	stdout, stderr io.Writer
	environ        []string
	color          bool

	admin     string
	tokenFile string
	output    string
	noColor   bool
}

// usageError is the caller's mistake; checkError is a check that says no, after it printed why.
type (
	usageError struct{ err error }
	checkError struct{ err error }
)

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }
func (e checkError) Error() string { return e.err.Error() }
func (e checkError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// main runs the command and turns its error into a line and an exit code.
func (a *app) main(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var (
		usage usageError
		check checkError
	)
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &check):
		fmt.Fprintln(a.stderr, "lagoon: "+check.Error())
		return exitCheck
	case errors.As(err, &usage), strings.HasPrefix(err.Error(), "unknown command"):
		// cobra's suggestions come on lines of their own.
		fmt.Fprintln(a.stderr, "lagoon: "+strings.Join(strings.Fields(err.Error()), " "))
		return exitUsage
	default:
		fmt.Fprintln(a.stderr, "lagoon: "+err.Error())
		return exitFailed
	}
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "lagoon",
		Short: "A Kafka-compatible broker in which a backfill cannot hurt the real-time path",
		Long: `A Kafka-compatible broker in which a backfill cannot hurt the real-time path.

Try it:      lagoon dev
Run it:      lagoon serve -c /etc/lagoon/lagoon.toml
Look at it:  lagoon top, lagoon status, lagoon readers, lagoon cache show, lagoon tiers

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 the check says no.`,
		SilenceErrors: true, SilenceUsage: true,
		// Before anything is asked or changed.
		PersistentPreRunE: func(*cobra.Command, []string) error { return a.checkOutput() },
	}
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usagef("%w (see %s --help)", err, c.CommandPath())
	})
	f := root.PersistentFlags()
	f.StringVar(&a.admin, "admin", a.getenv("LAGOON_ADMIN", standardAdmin()), "admin API of the daemon, a URL or unix:PATH, or $LAGOON_ADMIN")
	f.StringVar(&a.tokenFile, "token-file", a.getenv("LAGOON_TOKEN_FILE", ""), "file with the bearer token of the admin API, or $LAGOON_TOKEN_FILE")
	f.StringVarP(&a.output, "output", "o", "table", "table, wide, json or ndjson")
	f.BoolVar(&a.noColor, "no-color", false, "no colours, also with $NO_COLOR")
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(outputs, cobra.ShellCompDirectiveNoFileComp))
	root.AddCommand(
		a.serveCommand(), a.devCommand(), a.checkConfigCommand(), a.versionCommand(),
		a.doctorCommand(), a.statusCommand(), a.healthCommand(), a.topCommand(), a.cacheCommand(), a.readersCommand(), a.groupsCommand(), a.tiersCommand(), a.throttleCommand(), a.migrationsCommand(), a.pinsCommand(), a.unpinCommand(), a.compactionsCommand(), a.explainCommand(), a.configCommand(), a.logLevelCommand(), a.debugCommand(),
	)
	return root
}

// standardAdmin is the socket of a packaged daemon when there is one, else the standard port.
func standardAdmin() string {
	if info, err := os.Stat(defaultSocket); err == nil && info.Mode()&os.ModeSocket != 0 {
		return "unix:" + defaultSocket
	}
	return "http://127.0.0.1:9645"
}

func (a *app) getenv(name, standard string) string {
	for _, entry := range a.environ {
		if k, v, _ := strings.Cut(entry, "="); k == name && v != "" {
			return v
		}
	}
	return standard
}

// group makes a command that only holds others; asked without a known one it names them.
func group(c *cobra.Command, commands ...*cobra.Command) *cobra.Command {
	c.AddCommand(commands...)
	c.RunE = func(c *cobra.Command, args []string) error {
		var names []string
		for _, sub := range commands {
			names = append(names, sub.Name())
		}
		if len(args) == 0 {
			return usagef("%s needs one of: %s", path(c), strings.Join(names, ", "))
		}
		return usagef("%s has no %q: use one of %s", path(c), args[0], strings.Join(names, ", "))
	}
	return c
}

// path is the command without the program's name, which begins the line already.
func path(c *cobra.Command) string { return strings.TrimPrefix(c.CommandPath(), "lagoon ") }

// args checks the number of arguments; names are what usage calls them, optional ones in brackets.
func args(names ...string) cobra.PositionalArgs {
	least := 0
	for _, n := range names {
		if !strings.HasPrefix(n, "[") {
			least++
		}
	}
	return func(c *cobra.Command, got []string) error {
		if len(got) < least || len(got) > len(names) {
			want := strings.Join(names, " ")
			if want == "" {
				want = "no arguments"
			}
			return usagef("%s takes %s, not %d argument(s) (see --help)", path(c), want, len(got))
		}
		return nil
	}
}
