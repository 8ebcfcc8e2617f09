package main

import (
	"bytes"
	"os"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// ioPressure exports how much the machine's tasks wait for I/O. It is of the machine and not of a tier: the kernel keeps pressure by
// control group, not by device. Where it keeps none, nothing is exported.
type ioPressure struct{ path string }

// ioPressureFile has the lines "some" and "full", each with the shares of the last 10, 60 and 300 s in percent.
const ioPressureFile = "/proc/pressure/io"

var ioPressureDesc = prometheus.NewDesc("lagoon_psi_io_some_ratio",
	"Share of the last 10 s in which at least one task of the machine waited for I/O, on any device.", nil, nil)

// Describe implements prometheus.Collector.
func (ioPressure) Describe(ch chan<- *prometheus.Desc) { ch <- ioPressureDesc }

// Collect implements prometheus.Collector.
func (p ioPressure) Collect(ch chan<- prometheus.Metric) {
	text, err := os.ReadFile(p.path)
	if err != nil {
		return
	}
	if ratio, ok := parseIOPressure(text); ok {
		ch <- prometheus.MustNewConstMetric(ioPressureDesc, prometheus.GaugeValue, ratio)
	}
}

// parseIOPressure reads avg10 of the line "some avg10=0.36 avg60=0.44 avg300=0.76 total=1234" as a ratio.
func parseIOPressure(text []byte) (ratio float64, ok bool) {
	some, _, _ := bytes.Cut(text, []byte("\n"))
	average, found := bytes.CutPrefix(some, []byte("some avg10="))
	average, _, _ = bytes.Cut(average, []byte(" "))
	percent, err := strconv.ParseFloat(string(average), 64)
	return percent / 100, found && err == nil
}
