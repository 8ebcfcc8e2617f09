package main

import (
	"reflect"
	"testing"
	"time"

	"lagoon/internal/admin"
	"lagoon/internal/partition"
)

func TestDevicesCheck(t *testing.T) {
	if got, want := devicesCheck(nil), (admin.Check{Name: "devices-answer", OK: true, Severity: "warn"}); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	got := devicesCheck([]partition.Stall{
		{Dir: "hdd", Path: "/srv/hdd", IO: "read", For: 7 * time.Second},
		{Dir: "hdd", Path: "/srv/hdd", IO: "open", For: 5200 * time.Millisecond},
	})
	want := admin.Check{Name: "devices-answer", Severity: "warn",
		Text: "hdd (/srv/hdd): read has not come back for 7 s; hdd (/srv/hdd): open has not come back for 5 s"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}
