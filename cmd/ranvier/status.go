package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/ranvier-mesh/ranvier/internal/control"
)

func newStatus() *cobra.Command {
	var a access
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show a node's links and the mesh as it knows it",
		Args:  exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			asker, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			defer asker.Close()
			s, err := asker.Status(cmd.Context(), control.AllFields()...)
			if err != nil {
				return unavailable(err)
			}
			if asJSON {
				out := json.NewEncoder(cmd.OutOrStdout())
				out.SetIndent("", "  ")
				return out.Encode(s)
			}
			return showStatus(cmd.OutOrStdout(), s, time.Now())
		},
	}
	a.flags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object")
	return cmd
}

func showStatus(w io.Writer, s control.Status, now time.Time) error {
	fmt.Fprintf(w, "node %s, %s, %d CPUs, %d MiB\n", s.NodeID, s.Software, s.SystemCPUCount, s.SystemMemoryMiB)
	if s.Insecure {
		fmt.Fprintln(w, "insecure: without identities anyone who reaches a listener can join the mesh")
	}
	if s.Open && !s.Insecure {
		fmt.Fprintln(w, "open: whoever reaches this node may do what no work-policy item names")
	}
	if r := s.Refused; r.Streams+r.Adverts > 0 {
		fmt.Fprintf(w, "beyond the limits of an identity, and refused: %d streams, %d adverts\n", r.Streams, r.Adverts)
	}
	if r := s.Refused; r.Work+r.Services+r.Commands+r.Units > 0 {
		fmt.Fprintf(w, "refused by the policy: %d submits, %d streams to services, %d control commands, %d requests for units of others\n", r.Work, r.Services, r.Commands, r.Units)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\nLINK\tADDRESS\tDIRECTION\tCOST\tSTATE\tSINCE\tIN\tOUT")
	for _, l := range s.Links {
		fmt.Fprintf(t, "%s\t%s\t%s\t%v\t%s\t%s\t%s\t%s\n", orDash(l.NodeID), l.Address, l.Direction, l.Cost, linkState(l),
			ago(now, l.Since), bytesText(l.BytesIn), bytesText(l.BytesOut))
	}
	_ = t.Flush()
	for _, l := range s.Links { // a sentence would stretch the table
		if l.LastError != "" {
			fmt.Fprintf(w, "\n%s: %s\n", l.Address, l.LastError)
		}
	}
	fmt.Fprintln(t, "\nNODE\tSTATE\tSINCE\tCOST\tVIA\tWORK TYPES")
	for _, n := range s.Nodes {
		var types []string
		for _, w := range n.WorkTypes {
			types = append(types, w.WorkType)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%v\t%s\t%s\n", n.ID, nodeState(n), ago(now, n.Since), n.Cost,
			orDash(strings.Join(n.NextHops, ", ")), orDash(strings.Join(types, ", ")))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	return showSuspects(w, s.Suspects, now)
}

// showSuspects tells which nodes seem to drop or change what they should pass on.
func showSuspects(w io.Writer, all []control.Suspect, now time.Time) error {
	if len(all) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\nSUSPECT\tTIMES\tFIRST\tLAST")
	for _, k := range all {
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\n", k.NodeID, k.Times, ago(now, k.First), ago(now, k.Last))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, k := range all {
		fmt.Fprintf(w, "\n%s seems to drop or change what it should pass on; other ways are preferred: %s\n", k.NodeID, k.Why)
	}
	return nil
}

func linkState(l control.LinkStatus) string {
	if l.Insecure {
		return l.State + ", insecure"
	}
	return l.State
}

func nodeState(n control.NodeStatus) string {
	state := "reachable"
	if !n.Reachable {
		state = "unreachable"
	}
	for _, mark := range []struct {
		on   bool
		text string
	}{{n.Leaf, "leaf"}, {n.Draining, "draining"}, {n.Insecure, "insecure"}} {
		if mark.on {
			state += ", " + mark.text
		}
	}
	return state
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// ago is the time since t in its largest unit: people compare, they do not compute.
func ago(now, t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	d := now.Sub(t)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", max(0, int(d.Seconds())))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// bytesText is a number of bytes in the unit that fits.
func bytesText(n uint64) string {
	const units = "kMGTPE"
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	f, i := float64(n)/1000, 0
	for f >= 1000 && i < len(units)-1 {
		f, i = f/1000, i+1
	}
	return fmt.Sprintf("%.1f %cB", f, units[i])
}
