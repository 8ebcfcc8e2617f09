package main

import (
	"bytes"
	"os"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// diskIO exports what the kernel counts of this process's device I/O, under the JMX exporter's names and from where Kafka has it. Where
// the kernel does not tell, nothing is exported.
type diskIO struct{ path string }

// processIOFile counts what devices had to do for this process; what the page cache answers is no part of it.
const processIOFile = "/proc/self/io"

var (
	diskReadDesc  = prometheus.NewDesc("kafka_server_kafkaserver_linux_disk_read_bytes", "Bytes that this process has had read from devices.", nil, nil)
	diskWriteDesc = prometheus.NewDesc("kafka_server_kafkaserver_linux_disk_write_bytes", "Bytes that this process has had written to devices.", nil, nil)
)

// Describe implements prometheus.Collector.
func (diskIO) Describe(ch chan<- *prometheus.Desc) {
	ch <- diskReadDesc
	ch <- diskWriteDesc
}

// Collect implements prometheus.Collector.
func (d diskIO) Collect(ch chan<- prometheus.Metric) {
	text, err := os.ReadFile(d.path)
	if err != nil {
		return
	}
	for line := range bytes.Lines(text) {
		name, value, _ := bytes.Cut(bytes.TrimSpace(line), []byte(": "))
		n, err := strconv.ParseUint(string(value), 10, 64)
		switch {
		case err != nil:
		case string(name) == "read_bytes":
			ch <- prometheus.MustNewConstMetric(diskReadDesc, prometheus.GaugeValue, float64(n))
		case string(name) == "write_bytes":
			ch <- prometheus.MustNewConstMetric(diskWriteDesc, prometheus.GaugeValue, float64(n))
		}
	}
}
