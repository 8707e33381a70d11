package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/ranvier-mesh/ranvier/internal/control"
	"github.com/ranvier-mesh/ranvier/internal/identity"
)

func newPing() *cobra.Command {
	p := &pinger{}
	cmd := &cobra.Command{
		Use:   "ping NODE",
		Short: "Ask a node whether it is there",
		Args:  exactArgs("node"),
		RunE: func(cmd *cobra.Command, args []string) error {
			p.print = cmd.Printf
			return p.run(cmd.Context(), args[0])
		},
	}
	p.access.flags(cmd)
	cmd.Flags().IntVarP(&p.count, "count", "n", 4, "how many times")
	cmd.Flags().DurationVar(&p.delay, "delay", time.Second, "time between two")
	cmd.Flags().DurationVar(&p.wait, "wait", 0, "keep trying for this long until the node answers")
	cmd.Flags().BoolVar(&p.json, "json", false, "one JSON object a line")
	return cmd
}

type pinger struct {
	access access
	count  int
	delay  time.Duration
	wait   time.Duration
	json   bool
	print  func(format string, args ...any)
}

func (p *pinger) run(ctx context.Context, target string) error {
	a, r, err := p.first(ctx, target)
	if a == nil {
		return err
	}
	defer a.Close()
	lost := 0
	for i := 0; ; i++ {
		if err != nil {
			lost++
		}
		p.show(target, r, err)
		if errors.Is(err, identity.ErrRevoked) {
			return &codeError{exitUnavailable, nil} // that does not pass
		}
		if i == p.count-1 {
			break
		}
		if !pause(ctx, p.delay) {
			return &codeError{exitCanceled, nil}
		}
		r, err = a.Ping(ctx, target)
	}
	if lost > 0 {
		return &codeError{exitUnavailable, nil}
	}
	return nil
}

// first connects and pings once, again and again while --wait lasts.
func (p *pinger) first(ctx context.Context, target string) (a asker, r control.PingResult, err error) {
	over := time.Now().Add(p.wait)
	for {
		if a, err = p.access.open(ctx); err == nil {
			if r, err = a.Ping(ctx, target); err == nil || time.Now().After(over) {
				return a, r, err
			}
			a.Close()
		} else if time.Now().After(over) || errors.Is(err, identity.ErrRevoked) {
			return nil, r, err
		}
		if !pause(ctx, min(100*time.Millisecond, max(0, time.Until(over)))) {
			return nil, r, &codeError{exitCanceled, nil}
		}
	}
}

func (p *pinger) show(target string, r control.PingResult, err error) {
	switch {
	case p.json:
		line := map[string]any{"Success": err == nil, "Target": target}
		if err != nil {
			line["Error"] = err.Error()
		} else {
			line["Time"], line["TimeStr"] = r.Time, r.Time.String()
		}
		text, _ := json.Marshal(line)
		p.print("%s\n", text)
	case err != nil:
		p.print("no answer from %s: %v\n", target, err)
	default:
		p.print("answer from %s in %v\n", r.From, r.Time.Round(time.Microsecond))
	}
}

// pause waits; it returns false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func newTraceroute() *cobra.Command {
	var a access
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "traceroute NODE",
		Short: "Show the way to a node, hop by hop",
		Args:  exactArgs("node"),
		RunE: func(cmd *cobra.Command, args []string) error {
			asker, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			defer asker.Close()
			hops, err := asker.Traceroute(cmd.Context(), args[0])
			if err != nil {
				return unavailable(err)
			}
			return showTrace(cmd, hops, asJSON)
		},
	}
	a.flags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON list")
	return cmd
}

func showTrace(cmd *cobra.Command, hops []control.TraceHop, asJSON bool) error {
	failed := len(hops) > 0 && hops[len(hops)-1].Error != ""
	if asJSON {
		text, err := json.Marshal(hops)
		if err != nil {
			return err
		}
		cmd.Printf("%s\n", text)
	}
	for i, h := range hops {
		if asJSON {
			break
		}
		line := fmt.Sprintf("%2d  %s  %v", i, h.From, h.Time.Round(time.Microsecond))
		if h.Error != "" {
			line += "  " + h.Error
		}
		cmd.Println(line)
	}
	if failed {
		return &codeError{exitUnavailable, nil}
	}
	return nil
}
