package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"lagoon/conf"
	"lagoon/internal/admin"
)

// liveKeys are the keys and tables that a daemon takes from a new file while it runs: each has an owner that can be told. What is not here
// is read when the daemon starts, and waits for a restart.
var liveKeys = []string{
	"log.level",
	// Caps that span devices (limitsConfig).
	"throttle.catchup_total", "throttle.per_reader.max", "tiering.move_max",
	// Server-wide defaults of topic settings (conf.Config.TopicDefaults).
	"storage.flush", "storage.flush_interval", "storage.segment_bytes", "storage.segment_age", "storage.retention", "storage.retention_bytes",
	"storage.index_interval", "storage.max_message_bytes", "storage.file_delete_delay", "topic_defaults",
}

// reloadTime bounds a reload, for it may wait for changes that clients make.
const reloadTime = 15 * time.Second

// configuration is what a daemon runs with, and what its file says since. Safe for concurrent use.
type configuration struct {
	inForce atomic.Pointer[conf.Config]
	loading sync.Mutex // one reload at a time
	last    atomic.Pointer[lastLoad]
}

// lastLoad is how the file was read last.
type lastLoad struct {
	at      time.Time     // of the last one that was taken
	err     error         // of the last one; nil: it was taken
	pending []conf.Change // what waits for a restart
}

func newConfiguration(cfg *conf.Config) *configuration {
	c := &configuration{}
	c.inForce.Store(cfg)
	c.last.Store(&lastLoad{at: time.Now()})
	return c
}

// reload takes the live keys of the files, variables and flags that the daemon was started with, all or none of them. On an error
// everything is as it was.
func (d *daemon) reload(ctx context.Context, dry bool) (admin.ConfigReload, error) {
	ctx, cancel := context.WithTimeout(ctx, reloadTime)
	defer cancel()
	c := d.config
	c.loading.Lock()
	defer c.loading.Unlock()
	was := c.inForce.Load()
	next, err := d.opt.Load()
	merged := was
	if err == nil {
		merged, err = was.With(next, liveKeys)
	}
	if err == nil {
		err = checkTopicDefaults(merged)
	}
	if err == nil {
		err = d.adopt(ctx, was, merged, dry)
	}
	if err != nil {
		if ctx.Err() == nil {
			err = &admin.InvalidError{Detail: strings.ReplaceAll(err.Error(), "\n", "; ")}
		}
		if !dry {
			c.last.Store(&lastLoad{at: c.last.Load().at, err: err, pending: c.last.Load().pending})
			d.log.Error("configuration not reloaded: the one before stays in force", "err", err)
		}
		return admin.ConfigReload{}, err
	}
	applied, pending := was.Changes(merged), merged.Changes(next)
	out := admin.ConfigReload{Applied: !dry, Digest: merged.Digest(), Changed: configChanges(applied), PendingRestart: configChanges(pending)}
	if dry {
		return out, nil
	}
	c.last.Store(&lastLoad{at: time.Now(), pending: pending})
	for _, w := range next.Warnings {
		d.log.Warn("configuration", "where", w.Where, "key", w.Key, "text", w.Text, "code", w.Code)
	}
	for _, ch := range applied {
		d.log.Info("configuration changed", "key", ch.Key, "from", ch.From, "to", ch.To, "source", ch.Source)
	}
	for _, ch := range pending {
		d.log.Warn("configuration differs, but needs a restart", "key", ch.Key, "from", ch.From, "to", ch.To, "source", ch.Source)
	}
	d.log.Info("configuration reloaded", "file", next.File, "changed", len(applied), "need_restart", len(pending), "digest", merged.Digest())
	return out, nil
}

// adopt brings next in force, or in a dry run finds out whether that could be done. What may be refused comes first.
func (d *daemon) adopt(ctx context.Context, was, next *conf.Config, dry bool) error {
	if err := d.broker.SetTopicDefaults(ctx, next.TopicDefaults(), dry); err != nil || dry {
		return err
	}
	d.config.inForce.Store(next) // before the caps: whoever changes the catalogue from now on counts with these
	if err := d.applyLimits(); err != nil {
		d.config.inForce.Store(was)
		return errors.Join(err, d.applyLimits(), d.broker.SetTopicDefaults(context.WithoutCancel(ctx), was.TopicDefaults(), false))
	}
	d.opt.Level.configure(next.Log.Level)
	return nil
}

// applyLimits tells the store of the caps that the configuration and the catalogue want.
func (d *daemon) applyLimits() error {
	d.limiting.Lock()
	defer d.limiting.Unlock()
	if err := d.store.SetLimits(limitsConfig(d.config.inForce.Load(), d.catalogue.Snapshot())); err != nil {
		return fmt.Errorf("caps of cold reads and migrations: %w", err)
	}
	return nil
}

func configChanges(list []conf.Change) []admin.ConfigChange {
	out := make([]admin.ConfigChange, len(list))
	for i, c := range list {
		out[i] = admin.ConfigChange{Key: c.Key, From: c.From, To: c.To, Source: c.Source}
	}
	return out
}

// ReloadConfig reads the configuration again.
func (b *backend) ReloadConfig(ctx context.Context, dry bool) (admin.ConfigReload, error) {
	switch {
	case b.server.Load() == nil:
		return admin.ConfigReload{}, admin.ErrStarting
	case b.stateNow() == "draining":
		return admin.ConfigReload{}, &admin.InvalidError{Detail: "the broker is stopping: it reads its configuration when it starts again"}
	}
	return b.reload(ctx, dry)
}
