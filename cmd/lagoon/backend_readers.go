package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"lagoon/admission"
	"lagoon/internal/admin"
	"lagoon/internal/metadata"
	"lagoon/internal/partition"
)

func readerID(r partition.ReaderView) string { return "r-" + itoa(int64(r.ID)) }

// seconds is -1 for a time that is not known, which is any negative one.
func seconds(d time.Duration) float64 {
	if d < 0 {
		return -1
	}
	return d.Seconds()
}

func readerName(r partition.ReaderView) string {
	if r.Key.Group != "" {
		return r.Key.Group
	}
	return r.Key.Client
}

// groupSource says how a reader's group is known; "none" also for readers that no client is behind.
func groupSource(r partition.ReaderView) string {
	if r.Source == "" {
		return "none"
	}
	return r.Source
}

// Readers lists every reader with its class, lane, rate, and what holds it back.
func (b *backend) Readers(context.Context) ([]admin.Reader, error) {
	overrides := map[admission.Subject]bool{}
	for _, o := range b.store.Limits().Overrides {
		overrides[o.Subject()] = true
	}
	type flowIn struct {
		flow  admission.Subject
		topic string
	}
	races := map[flowIn]admission.RaceView{}
	for _, v := range b.store.Races() {
		races[flowIn{v.Flow, v.Topic}] = v
	}
	views := b.store.Readers()
	out := make([]admin.Reader, 0, len(views))
	for _, r := range views {
		ar := admin.Reader{
			ID: readerID(r), ClientID: r.Key.Client, Group: r.Key.Group, GroupSource: groupSource(r), Peer: r.Peer, Topic: r.Key.Topic, Partition: r.Key.Partition,
			Class: r.Class.State.String(), ClassReason: r.Class.Text, ClassSince: r.Class.Since, FetchOffset: r.Position.Offset,
			EndOffset: r.Position.EndOffset, LagRecords: r.LagRecords, LagBytes: r.LagBytes, LagSeconds: seconds(r.LagAge), ETASeconds: seconds(r.ETA),
			Tier: r.Tier, Lane: r.Decision.Lane.String(), IOMode: ioMode(r), RateBytes: float64(r.BytesPerSecond),
			ColdBytes: r.LaneBytesTotal[admission.Fill] + r.LaneBytesTotal[admission.Bypass],
			Sources: admin.SourceBytes{PageCache: r.LaneBytes[admission.Hot],
				Tiers: map[string]int64{r.Tier: r.LaneBytes[admission.Fill] + r.LaneBytes[admission.Bypass]}, Refill: r.LaneBytes[admission.Fill]},
			Throttle: admin.ReaderThrottle{WaitRatio: r.WaitRatio},
		}
		limit := r.Limit
		if limit.By == admission.LimitNone {
			limit = r.LimitedBy
		}
		if limit.By != admission.LimitNone {
			ar.Throttle.LimitedBy, ar.Throttle.LimitBytes, ar.Throttle.NextGrantSeconds = limit.String(), limit.BytesPerSecond, limit.Wait.Seconds()
		}
		if flow := r.Key.Flow(); overrides[flow] {
			ar.Throttle.Override = flow.Kind.String() + "/" + flow.Name
		}
		if v, ok := races[flowIn{r.Key.Flow(), r.Key.Topic}]; ok {
			ar.Retention = &admin.ReaderRace{CountdownSeconds: seconds(v.Countdown), LossBytes: v.LossBytes, LostAnywayBytes: v.LostAnyway,
				NeededBytes: v.Needed, Weight: float64(v.Weight) / admission.DefaultWeight, Text: v.Text}
		}
		out = append(out, ar)
	}
	return out, nil
}

// ioMode is how the last read's bytes left: by sendfile from the page cache, or by the method of the device read.
func ioMode(r partition.ReaderView) string {
	if r.Decision.Lane == admission.Hot || r.Method == "" {
		return "sendfile"
	}
	return string(r.Method)
}

// Throttle shows budgets, who shares them, and the overrides.
func (b *backend) Throttle(context.Context) (admin.Throttle, error) {
	limits := b.store.Limits()
	t := admin.Throttle{Mode: b.config.inForce.Load().Throttle.Mode, TotalBytes: limits.Config.GlobalBytesPerSecond, PerReaderBytes: limits.Config.FlowBytesPerSecond,
		Devices: []admin.Device{}, Flows: []admin.Flow{}, Caps: []admin.Cap{}, Overrides: []admin.Override{}}
	flows := map[string]*admin.Flow{}
	var order []string
	for _, d := range b.store.Dirs() {
		v := d.Device
		dev := admin.Device{Tier: d.Name, LimitBytes: v.BytesPerSecond, TokensBytes: v.TokensBytes, GrantedBytes: v.ReadBytes + v.MigrationBytes,
			InFlight: v.InFlight, Queued: v.Queued}
		if control := d.Controller; control != nil {
			dev.State, dev.Reason, dev.Signals = control.Budget.State.String(), control.Reason, signals(control)
		}
		for _, f := range v.Flows {
			dev.UsedBytes += float64(f.BytesPerSecond)
			name := f.Flow.String()
			af := flows[name]
			if af == nil {
				af = &admin.Flow{Name: name, Weight: float64(f.Weight) / admission.DefaultWeight, WaitBy: map[string]float64{}}
				flows[name] = af
				order = append(order, name)
			}
			af.GrantedBytes += f.GrantedBytes
			af.RateBytes += float64(f.BytesPerSecond)
			for i, by := range admission.Scopes {
				if waited := f.Waited[i].Seconds(); waited > 0 {
					af.WaitSeconds += waited
					af.WaitBy[string(by)] += waited
				}
			}
			af.Queued += f.Queued
			if f.LimitedBy.By != admission.LimitNone {
				af.LimitedBy = f.LimitedBy.String()
			}
		}
		t.Devices = append(t.Devices, dev)
	}
	for _, name := range order {
		t.Flows = append(t.Flows, *flows[name])
	}
	for _, c := range limits.Configured {
		t.Caps = append(t.Caps, admin.Cap{Kind: admin.OverrideKind(c.Kind.String()), Name: c.Name, BytesPerSecond: c.BytesPerSecond,
			Weight: float64(c.Weight) / admission.DefaultWeight})
	}
	for _, o := range limits.Overrides {
		ao := admin.Override{Kind: admin.OverrideKind(o.Kind.String()), Name: o.Name, BytesPerSecond: o.BytesPerSecond, Expires: o.Expires, Reason: o.Reason}
		if o.Weight != 0 {
			ao.Weight = float64(o.Weight) / admission.DefaultWeight
		}
		t.Overrides = append(t.Overrides, ao)
	}
	return t, nil
}

// signals are what a controller watches.
func signals(v *admission.ControllerView) []admin.Signal {
	out := make([]admin.Signal, 0, len(v.Signals))
	for _, s := range v.Signals {
		as := admin.Signal{Signal: s.Signal.String(), Unit: s.Signal.Unit(), Measured: s.Measured, Cuts: s.Cuts}
		if s.Known {
			undisturbed, most := s.Undisturbed, s.Limit
			as.Undisturbed, as.Limit = &undisturbed, &most
		}
		out = append(out, as)
	}
	return out
}

// SetOverride keeps an override over restarts; the daemon's catalogueChanged brings it in force.
func (b *backend) SetOverride(_ context.Context, o admin.Override) error {
	mo := metadata.Override{Kind: string(o.Kind), Name: o.Name, BytesPerSecond: o.BytesPerSecond, Weight: o.Weight, Reason: o.Reason}
	if !o.Expires.IsZero() {
		mo.ExpiresMs = o.Expires.UnixMilli()
	}
	ao, err := admissionOverride(mo)
	if err == nil {
		err = ao.Validate(time.Now())
	}
	if err != nil {
		return &admin.InvalidError{Detail: err.Error()}
	}
	b.overriding.Lock()
	defer b.overriding.Unlock()
	if err := b.forgetExpired(mo); err != nil {
		return err
	}
	return b.meta.PutOverride(mo)
}

// forgetExpired takes the overrides that have ended out of the catalogue, before mo comes into it: nobody sees them, and a script that
// sets one for every job would make it grow for ever. What admission would not take is refused. Called with overriding held.
func (b *backend) forgetExpired(mo metadata.Override) error {
	now, left := time.Now().UnixMilli(), 0
	for k, o := range b.meta.Snapshot().Overrides {
		switch {
		case k == (metadata.OverrideKey{Kind: mo.Kind, Name: mo.Name}): // is replaced
		case o.ExpiresMs > 0 && o.ExpiresMs <= now:
			if _, err := b.meta.DeleteOverride(k.Kind, k.Name); err != nil {
				return err
			}
		default:
			left++
		}
	}
	if left >= admission.MaxOverrides {
		return &admin.InvalidError{Detail: fmt.Sprintf("there are %d overrides, the most there may be: remove some", left)}
	}
	return nil
}

// DeleteOverride ends one.
func (b *backend) DeleteOverride(_ context.Context, kind admin.OverrideKind, name string) error {
	had, err := b.meta.DeleteOverride(string(kind), name)
	if had || err != nil {
		return err
	}
	e := &admin.NotFoundError{What: "override", Name: name}
	for k := range b.meta.Snapshot().Overrides {
		if k.Kind == string(kind) {
			e.Known = append(e.Known, k.Name)
		}
	}
	slices.Sort(e.Known)
	return e
}
