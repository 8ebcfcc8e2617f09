package lab

import (
	"fmt"
	"path/filepath"
	"strconv"
)

// Device is a set of disks for a broker under test, by a letter.
type Device string

// The devices.
const (
	SSD      Device = "S" // one fast disk: the machine's own, through a loop device
	TwoTiers Device = "T" // a fast and a slow disk
	SlowDisk Device = "H" // one disk of 150 MB/s and 200 requests a second
	OneHead  Device = "R" // one simulated hard disk
)

// slowDisk is the throttle of a disk that behaves like a hard disk: 150 MB/s, 200 requests a second, to reads and to writes.
var slowDisk = Throttle{ReadBytes: 150e6, WriteBytes: 150e6, ReadOps: 200, WriteOps: 200}

// ParseDevice reads the letter of a device.
func ParseDevice(s string) (Device, error) {
	switch d := Device(s); d {
	case SSD, TwoTiers, SlowDisk, OneHead:
		return d, nil
	}
	return "", fmt.Errorf("device %q: want S (ssd), T (ssd and slow disk as two tiers), H (throttled disk) or R (simulated single head)", s)
}

// Explain says in a line what the device is.
func (d Device) Explain() string {
	return map[Device]string{
		SSD:      "ssd: ext4 on a loop device over the machine's disk, no throttle",
		TwoTiers: "ssd, and a disk throttled to 150 MB/s and 200 requests/s as the cold tier",
		SlowDisk: "one disk throttled to 150 MB/s and 200 requests/s for everything",
		OneHead:  "one simulated single-head disk for everything: 150 MB/s, seek 0.8-8.8 ms, 7,200 turns/min",
	}[d]
}

// Tier is one disk of a rig in the role that a broker gives it.
type Tier struct {
	Name  string // ssd or hdd
	Class string // as Lagoon's configuration names it: ssd or hdd
	Disk  *Disk
}

// Data is where a broker keeps its data on the tier.
func (t Tier) Data() string { return filepath.Join(t.Disk.Path(), "data") }

// Rig is what a broker under test gets: disks, from hot to cold, and memory.
type Rig struct {
	lab    *Lab
	Device Device
	Tiers  []Tier
	Group  *Cgroup
	Memory int64
	starts int
}

// RigOptions say how large a rig is.
type RigOptions struct {
	Device Device
	Bytes  int64 // of each disk whose image is a file
	// SlowInMemory, if not 0, puts the image of the slow disk into memory, that many bytes of it.
	SlowInMemory int64
	Memory       int64 // of the broker's group, page cache included; the dirty limits of the machine are set to 20 and 10 % of it
}

// Rig makes the disks of a device and a memory group.
func (l *Lab) Rig(o RigOptions) (*Rig, error) {
	if o.Device != SSD && o.SlowInMemory > 0 {
		available, err := availableMemory()
		if err != nil {
			return nil, err
		}
		if err := fits(o.SlowInMemory, o.Memory, available); err != nil {
			return nil, err
		}
	}
	r := &Rig{lab: l, Device: o.Device, Memory: o.Memory}
	// cgroup v1 has no dirty limit of a group: the machine's is set to what the group's would be.
	for name, share := range map[string]int64{"vm.dirty_background_bytes": 10, "vm.dirty_bytes": 20} {
		if err := l.Sysctl(name, strconv.FormatInt(o.Memory*share/100, 10)); err != nil {
			return nil, err
		}
	}
	type plan struct {
		name     string
		spindle  bool
		throttle bool
	}
	for _, p := range map[Device][]plan{
		SSD:      {{name: "ssd"}},
		TwoTiers: {{name: "ssd"}, {name: "hdd", throttle: true}},
		SlowDisk: {{name: "hdd", throttle: true}},
		OneHead:  {{name: "hdd", spindle: true}},
	}[o.Device] {
		disk := DiskOptions{Name: p.name, Bytes: o.Bytes, Spindle: p.spindle}
		if o.SlowInMemory > 0 && (p.throttle || p.spindle) {
			disk.Bytes, disk.InMemory = o.SlowInMemory, true
		}
		d, err := l.Disk(disk)
		if err != nil {
			return nil, err
		}
		r.Tiers = append(r.Tiers, Tier{Name: p.name, Class: p.name, Disk: d})
	}
	var err error
	// Last, so that it is the first to go, with the processes in it.
	if r.Group, err = l.Cgroup(o.Memory); err != nil {
		return nil, err
	}
	for _, t := range r.Tiers {
		if t.Name == "hdd" && o.Device != OneHead {
			if err := t.Disk.Throttle(slowDisk, r.Group); err != nil {
				return nil, err
			}
		}
	}
	return r, nil
}
