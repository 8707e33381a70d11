package sim

import (
	"fmt"
	"time"

	"github.com/ranvier-mesh/ranvier/routing"
)

// churn boots the mesh, lets something happen about every pause, and looks at
// it when it has become quiet.
func churn(w *world, routers, leaves []*node, d, pause time.Duration) {
	w.bootAll()
	w.run(time.Minute)
	w.stir(routers, leaves, d, pause)
	w.settle()
}

func (w *world) stir(routers, leaves []*node, d, pause time.Duration) {
	for end := w.now + d; w.now < end; {
		w.run(w.between(0, 2*pause))
		if w.rng.IntN(2) == 0 && len(leaves) > 0 {
			w.leafTrouble(leaves[w.rng.IntN(len(leaves))])
		} else {
			w.trouble(routers)
		}
	}
}

// settle mends everything, and waits for those who have failed for so long that
// they seldom dial.
func (w *world) settle() {
	for _, e := range w.edges {
		w.mend(e)
	}
	w.bootAll()
	w.run(redialSlow)
	w.calm()
}

// trouble is something that happens to routers and the links between them.
func (w *world) trouble(routers []*node) {
	n := routers[w.rng.IntN(len(routers))]
	e := n.edges[w.rng.IntN(len(n.edges))]
	switch w.rng.IntN(8) {
	case 0:
		w.kill(n)
		w.after(w.between(0, 20*time.Second), func() { w.boot(n) })
	case 1:
		if w.rng.IntN(4) == 0 {
			w.kill(n)
			n.epoch = 0
		}
		w.boot(n)
	case 2, 3:
		w.sever(e)
		w.after(w.between(0, 30*time.Second), func() { w.mend(e) })
	case 4:
		w.breakUp(e)
	case 5:
		w.recost(e)
	default:
		w.change(n)
	}
}

// leafTrouble is what happens to leaves: they come, go and wander.
func (w *world) leafTrouble(n *node) {
	e := n.edges[w.rng.IntN(len(n.edges))]
	switch w.rng.IntN(4) {
	case 0:
		w.kill(n)
		w.after(w.between(0, time.Minute), func() { w.boot(n) })
	case 1:
		w.breakUp(e)
	case 2:
		w.sever(e)
		w.after(w.between(0, 30*time.Second), func() { w.mend(e) })
	default:
		w.kill(n)
		home := w.nodes[w.rng.IntN(len(w.nodes))]
		taken := home.leaf
		for _, o := range n.edges {
			taken = taken || o.ends[1] == home
		}
		if !taken {
			w.rehome(e, home)
		}
		w.boot(n)
	}
}

// change has a router say something else of itself.
func (w *world) change(n *node) {
	n.local = routing.Local{Draining: w.rng.IntN(4) == 0}
	for i := range w.rng.IntN(100) {
		n.local.Services = append(n.local.Services, routing.Service{Name: fmt.Sprintf("s%d", i)})
	}
	if n.core != nil {
		n.core.SetLocal(w.clock(n), n.local)
		w.pump(n)
	}
}

// recost changes what a link between routers costs, at both ends.
func (w *world) recost(e *edge) {
	if e.ends[0].leaf {
		return
	}
	e.cost = w.cost()
	for i, n := range e.ends {
		if peer := e.ends[1-i].id; n.conns[peer] != nil {
			n.core.SetCost(w.clock(n), peer, e.cost)
			w.pump(n)
		}
	}
}
