package main

import (
	"fmt"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"lagoon/internal/admin"
)

func (a *app) tiersCommand() *cobra.Command {
	return &cobra.Command{
		Use: "tiers", Short: "Tiers from hot to cold: how full, how read, what moves next", Args: args(),
		RunE: func(c *cobra.Command, _ []string) error {
			body, err := a.ask(c.Context(), http.MethodGet, "/api/v1/tiers", nil, nil)
			if err != nil {
				return err
			}
			return a.show(body, "tiers", func(wide bool) error { return a.printTiers(body, wide) })
		},
	}
}

func (a *app) printTiers(body []byte, wide bool) error {
	answer, err := decode[admin.TierList](body)
	if err != nil {
		return err
	}
	header := []string{"TIER", "CLASS", "STATE", "LOG", "DISK", "USED", "MOVES AT", "KEEP", "SEGMENTS", "COLD READS", "LIMIT", "QUEUED"}
	if wide {
		header = append(header, "DEVICE", "COLD BYTES", "RESIDENT", "PATH", "NEXT TO MOVE")
	}
	t := a.table(header...)
	for _, tier := range answer.Tiers {
		keep := "-"
		if tier.KeepSeconds > 0 {
			keep = span(tier.KeepSeconds)
		}
		cells := []string{
			tier.Name, tier.Class, tier.State, size(tier.UsedBytes), size(tier.CapacityBytes), percent(tier.UsedBytes, tier.MayUseBytes()),
			fmt.Sprintf("%.0f%%", 100*tier.HighWatermark), keep, fmt.Sprint(tier.Segments), dash(tier.ReadMode), limit(tier.LimitBytes), fmt.Sprint(tier.QueuedReads),
		}
		if wide {
			next := "-"
			if len(tier.NextToMove) > 0 {
				m := tier.NextToMove[0]
				next = fmt.Sprintf("%s/%d@%d to %s: %s (%d in all)", m.Topic, m.Partition, m.Base, m.To, m.Reason, len(tier.NextToMove))
			}
			device := dash(tier.ClassFrom)
			if tier.SequentialBytes > 0 {
				device = fmt.Sprintf("seek %.2gms, %s/s", 1e3*tier.SeekSeconds, size(tier.SequentialBytes))
			}
			cells = append(cells, device, size(tier.ReadBytesTotal), size(tier.ResidentBytes), tier.Path, next)
		}
		t.add(classColor(tier.State), cells...)
		if tier.Error != "" {
			t.add(red, "", "", tier.Error)
		}
	}
	return t.print()
}

func (a *app) migrationsCommand() *cobra.Command {
	list := &cobra.Command{
		Use: "migrations", Short: "Segments on their way to another tier", Args: args(),
		RunE: func(c *cobra.Command, _ []string) error {
			body, err := a.ask(c.Context(), http.MethodGet, "/api/v1/migrations", nil, nil)
			if err != nil {
				return err
			}
			return a.show(body, "migrations", func(wide bool) error { return a.printMigrations(body, wide) })
		},
	}
	list.AddCommand(a.migrationsStartCommand(), a.migrationsCancelCommand(), a.migrationsPauseCommand(), a.migrationsResumeCommand())
	return list
}

func (a *app) migrationsStartCommand() *cobra.Command {
	var reason string
	start := &cobra.Command{
		Use: "start TOPIC/PARTITION@BASE TIER", Short: "Move one sealed segment, named by its base offset, to a colder tier, ahead of what is planned",
		Args: args("TOPIC/PARTITION@BASE", "TIER"),
		RunE: func(c *cobra.Command, args []string) error {
			topic, partition, base, err := topicPartitionOffset(args[0])
			if err != nil {
				return err
			}
			in := admin.MigrationOrder{Topic: topic, Partition: partition, BaseOffset: base, To: args[1], Reason: reason}
			return a.migration(c, http.MethodPost, "/api/v1/migrations", in, "ordered")
		},
	}
	start.Flags().StringVar(&reason, "reason", "", "shown beside the migration")
	return start
}

func (a *app) migrationsCancelCommand() *cobra.Command {
	return &cobra.Command{
		Use: "cancel ID", Short: "Cancel a migration that waits or runs; its segment is left alone for an hour", Args: args("ID"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.migration(c, http.MethodDelete, "/api/v1/migrations/"+url.PathEscape(args[0]), nil, "cancelled")
		},
	}
}

// migration asks for a change of one migration and says what was done to it.
func (a *app) migration(c *cobra.Command, method, path string, in any, done string) error {
	body, err := a.ask(c.Context(), method, path, nil, in)
	if err != nil {
		return err
	}
	return a.show(body, "", func(bool) error {
		m, err := decode[admin.Migration](body)
		if err != nil {
			return err
		}
		fmt.Fprintf(a.stdout, "%s %s: %s/%d@%d from %s to %s\n", done, clean(m.ID), m.Topic, m.Partition, m.BaseOffset, m.From, m.To)
		return nil
	})
}

func (a *app) migrationsPauseCommand() *cobra.Command {
	var reason string
	pause := &cobra.Command{
		Use: "pause", Short: "Hold all migrations up, until they are resumed or the broker restarts", Args: args(),
		RunE: func(c *cobra.Command, _ []string) error {
			return a.migrationsPause(c, http.MethodPut, admin.MigrationPauseBody{Reason: reason})
		},
	}
	pause.Flags().StringVar(&reason, "reason", "", "shown as long as they are paused")
	return pause
}

func (a *app) migrationsResumeCommand() *cobra.Command {
	return &cobra.Command{
		Use: "resume", Short: "Let migrations go on", Args: args(),
		RunE: func(c *cobra.Command, _ []string) error { return a.migrationsPause(c, http.MethodDelete, nil) },
	}
}

func (a *app) migrationsPause(c *cobra.Command, method string, in any) error {
	body, err := a.ask(c.Context(), method, "/api/v1/migrations/pause", nil, in)
	if err != nil {
		return err
	}
	return a.show(body, "", func(bool) error {
		p, err := decode[admin.MigrationPause](body)
		if err != nil {
			return err
		}
		if p.Paused {
			fmt.Fprintln(a.stdout, "migrations are paused")
		} else {
			fmt.Fprintln(a.stdout, "migrations go on")
		}
		return nil
	})
}

func (a *app) compactionsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "compactions", Short: "Partitions of compacted topics: what is due, and how the last compaction ended", Args: args(),
		RunE: func(c *cobra.Command, _ []string) error {
			body, err := a.ask(c.Context(), http.MethodGet, "/api/v1/compactions", nil, nil)
			if err != nil {
				return err
			}
			return a.show(body, "partitions", func(wide bool) error { return a.printCompactions(body, wide) })
		},
	}
}

func (a *app) printCompactions(body []byte, wide bool) error {
	m, err := decode[admin.Compactions](body)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "%s; %d partitions, %d due\n", m.State, len(m.Partitions), m.Due)
	if len(m.Partitions) == 0 {
		return nil
	}
	header := []string{"PARTITION", "STATE", "DIRTY", "OF", "RATIO", "DONE", "KEPT", "TOOK", "REASON"}
	if wide {
		header = append(header, "CLEANED TO", "CLEANABLE TO", "RECORDS", "KEPT RECORDS")
	}
	t := a.table(header...)
	for _, p := range m.Partitions {
		reason := p.Reason
		if p.Error != "" {
			reason = p.Error
		}
		cells := []string{fmt.Sprintf("%s/%d", p.Topic, p.Partition), p.State, size(p.DirtyBytes), size(p.CleanBytes + p.DirtyBytes), fmt.Sprintf("%.2f", p.DirtyRatio),
			percent(p.DoneBytes, p.TotalBytes), percent(p.KeptBytes, p.ReadBytes), span(p.ElapsedSeconds), clean(reason)}
		if wide {
			cells = append(cells, fmt.Sprint(p.CleanedTo), fmt.Sprint(p.CleanableTo), fmt.Sprint(p.ReadRecords), fmt.Sprint(p.KeptRecords))
		}
		t.add(classColor(p.State), cells...)
	}
	return t.print()
}

func (a *app) printMigrations(body []byte, wide bool) error {
	m, err := decode[admin.Migrations](body)
	if err != nil {
		return err
	}
	state := m.State
	if m.PausedReason != "" {
		state += " (" + clean(m.PausedReason) + ")"
	}
	fmt.Fprintf(a.stdout, "%s; %d waiting, %s to move, %d put off (%s), moved %d segments (%s), failed %d, limit %s\n",
		state, m.Waiting, size(m.BacklogBytes), m.PutOff, size(m.PutOffBytes), m.Moved, size(m.MovedBytes), m.Failed, limit(m.LimitBytes))
	if len(m.Migrations) == 0 {
		return nil
	}
	header := []string{"ID", "SEGMENT", "FROM", "TO", "STATE", "DONE", "SIZE", "ETA", "REASON"}
	if wide {
		header = append(header, "STARTED", "FINISHED")
	}
	t := a.table(header...)
	for _, g := range m.Migrations {
		reason := g.Reason
		if g.Error != "" {
			reason = g.Error
		}
		cells := []string{
			dash(g.ID), fmt.Sprintf("%s/%d@%d", g.Topic, g.Partition, g.BaseOffset), g.From, g.To, g.State, percent(g.DoneBytes, g.Bytes), size(g.Bytes), span(g.ETASeconds), reason,
		}
		if wide {
			for _, at := range []interface {
				IsZero() bool
				Format(string) string
			}{g.StartedAt, g.FinishedAt} {
				if at.IsZero() {
					cells = append(cells, "-")
				} else {
					cells = append(cells, at.Format("15:04:05"))
				}
			}
		}
		t.add(classColor(g.State), cells...)
	}
	return t.print()
}
