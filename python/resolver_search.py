# SPDX-License-Identifier: Apache-2.0
"""The search for a set of versions, step by step as pip searches.

Runs in: the resolver's process (see resolver.py). The order of steps decides which of several
possible answers is found, so this follows the algorithm of resolvelib 1.2 (ISC licence), which pip
has and Debian 12 has not: above all backjumping, optimistic at first. What is kept here and not
there: whether a pin satisfies a criterion, and a criterion's preference, are worked out once.

A requirement has .name, .extras; a candidate, too. Both have an `ident`, (name, extras), one
problem to be solved each.
"""

import itertools

MAX_ROUNDS = 200000  # as pip; time is limited elsewhere
OPTIMISTIC_SHARE = 0.1
PROMOTED_AFTER = 5  # conflicts


class Impossible(Exception):
    """causes: (requirement, parent) pairs that exclude each other."""

    def __init__(self, causes):
        super().__init__("no solution")
        self.causes = causes


class TooDeep(Exception):
    pass


class Conflict(Exception):
    def __init__(self, criterion):
        super().__init__("conflict")
        self.criterion = criterion


class Candidates:
    """An iterator that can be begun again: what was drawn is kept."""

    __slots__ = ("drawn", "rest")

    def __init__(self, iterable):
        self.drawn = []
        self.rest = iter(iterable)

    def __iter__(self):
        for at in itertools.count():
            if at == len(self.drawn):
                try:
                    self.drawn.append(next(self.rest))
                except StopIteration:
                    return
            yield self.drawn[at]

    def __bool__(self):
        return any(True for _ in self)


class Criterion:
    """All that is wanted of one ident. Never changed, but for what it remembers."""

    __slots__ = ("candidates", "information", "incompatible", "pin", "preference")

    def __init__(self, candidates, information, incompatible):
        self.candidates = candidates
        self.information = information  # (requirement, parent) pairs
        self.incompatible = incompatible
        self.pin = None  # a candidate that satisfies every requirement
        self.preference = None

    def satisfied_by(self, candidate, provider) -> bool:
        if candidate is None:
            return False
        if self.pin is not candidate:
            if not all(provider.is_satisfied_by(r, candidate) for r, _ in self.information):
                return False
            self.pin = candidate
        return True


class State:
    __slots__ = ("mapping", "criteria", "causes")

    def __init__(self, mapping, criteria, causes):
        self.mapping = mapping  # ident -> candidate, the last pinned last
        self.criteria = criteria
        self.causes = causes

    def copy(self):
        return State(self.mapping.copy(), self.criteria.copy(), self.causes)


class Search:
    """One search. The provider has find(ident, requirements of ident -> list, excluded),
    is_satisfied_by(requirement, candidate), dependencies(candidate) and preference(ident,
    information)."""

    def __init__(self, provider):
        self.provider = provider
        self.states = []
        self.saved = None  # the states before the first optimistic jump
        self.optimistic = OPTIMISTIC_SHARE
        self.conflicts = {}  # ident -> how often it stood in a conflict, not pinned
        self.promoted = set()

    @property
    def state(self) -> State:
        return self.states[-1]

    # --- criteria ---

    def add(self, criteria, requirement, parent):
        ident = requirement.ident
        old = criteria.get(ident)
        information = [*old.information, (requirement, parent)] if old else [(requirement, parent)]
        incompatible = old.incompatible if old else []
        wanted = [r for r, _ in information]
        found = Candidates(self.provider.find(ident, wanted, self.base(criteria, ident), incompatible))
        criterion = Criterion(found, information, incompatible)
        if not found:
            raise Conflict(criterion)
        criteria[ident] = criterion

    @staticmethod
    def base(criteria, ident) -> list:
        """What is wanted of the same dist without extras."""
        name, extras = ident
        plain = criteria.get((name, frozenset())) if extras else None
        return [r for r, _ in plain.information] if plain else []

    def updated(self, candidate):
        criteria = self.state.criteria.copy()
        for requirement in self.provider.dependencies(candidate):
            self.add(criteria, requirement, candidate)
        return criteria

    def forget(self, idents):
        """What these asked of others does not count any more."""
        criteria = self.state.criteria
        for ident, criterion in criteria.items() if idents else ():
            kept = [i for i in criterion.information if i[1] is None or i[1].ident not in idents]
            if len(kept) != len(criterion.information):
                criteria[ident] = Criterion(criterion.candidates, kept, criterion.incompatible)

    def patch(self, broken) -> bool:
        criteria = self.state.criteria
        for ident, incompatible in broken:
            criterion = criteria.get(ident)
            if not incompatible or criterion is None:
                continue
            wanted = [r for r, _ in criterion.information]
            base = self.base(criteria, ident)
            together = [*incompatible, *criterion.incompatible]
            found = Candidates(self.provider.find(ident, wanted, base, together))
            if not found:
                return False
            criteria[ident] = Criterion(found, criterion.information, together)
        return True

    # --- rounds ---

    def unsatisfied(self) -> list:
        mapping, provider = self.state.mapping, self.provider
        found = []
        for ident, criterion in self.state.criteria.items():
            pin = mapping.get(ident)
            if pin is None or not (criterion.pin is pin or criterion.satisfied_by(pin, provider)):
                found.append(ident)
        return found

    def narrowed(self, idents) -> list:
        causes = set()
        for requirement, parent in self.state.causes:
            for ident in [requirement.ident] + ([parent.ident] if parent is not None else []):
                causes.add(ident)
                if ident not in self.state.mapping:
                    self.conflicts[ident] = self.conflicts.get(ident, 0) + 1
                    if self.conflicts[ident] >= PROMOTED_AFTER:
                        self.promoted.add(ident)
        python = [i for i in idents if not i[0]]
        current = [i for i in idents if i in causes]
        promoted = [i for i in idents if i in self.promoted]
        return python[:1] or current or promoted or idents

    def preference(self, ident):
        criterion = self.state.criteria[ident]
        if criterion.preference is None:
            criterion.preference = self.provider.preference(ident, criterion.information)
        return ident not in self.promoted, criterion.preference

    def pin(self, ident) -> list:
        """Pin the best candidate that works; else the criteria that failed."""
        criterion = self.state.criteria[ident]
        failed = []
        for candidate in criterion.candidates:
            try:
                criteria = self.updated(candidate)
            except Conflict as conflict:
                failed.append(conflict.criterion)
                continue
            self.state.criteria = criteria
            self.state.mapping.pop(ident, None)
            self.state.mapping[ident] = candidate
            return []
        return failed

    def jump(self, causes) -> bool:
        """Back to a state in which something of the conflict can be chosen otherwise."""
        involved = {r.ident for r, _ in causes} | {p.ident for _, p in causes if p is not None}
        while len(self.states) >= 3:
            del self.states[-1]
            broken, ident, candidate = self.unwind(causes, involved)
            incompatible = [(i, c.incompatible) for i, c in broken.criteria.items()]
            incompatible.append((ident, [candidate]))
            self.states.append(self.state.copy())
            if self.patch(incompatible):
                return True
        return False

    def unwind(self, causes, involved):
        while True:
            if not self.states or not self.states[-1].mapping:
                raise Impossible(causes)
            broken = self.states.pop()
            ident, candidate = broken.mapping.popitem()
            if ident not in involved:
                if not self.optimistic:
                    break
                if self.saved is None:
                    self.saved = [state.copy() for state in self.states]
            names = {r.ident for r in self.provider.dependencies(candidate)}
            if not names.isdisjoint(involved) or not broken.mapping:
                break
            if len(self.states) <= 1:
                raise Impossible(causes)
        return broken, ident, candidate

    def roll_back(self):
        self.optimistic = 0
        self.states, self.saved = self.saved, None

    def conflict(self, failed):
        causes = list({id(i): i for c in failed for i in c.information}.values())
        try:
            success = self.jump(causes)
        except Impossible:
            if not (self.optimistic and self.saved):
                raise
            success = False
        if not success and self.optimistic and self.saved:
            self.roll_back()
            return
        if not success:
            raise Impossible(causes)
        self.state.causes = causes

    def step(self) -> bool:
        """One round; true when everything is pinned."""
        unsatisfied = self.unsatisfied()
        if not unsatisfied:
            return True
        idents = self.narrowed(unsatisfied) if len(unsatisfied) > 1 else unsatisfied
        ident = min(idents, key=self.preference) if len(idents) > 1 else idents[0]
        before = set(unsatisfied)
        known = set(self.state.criteria)
        failed = self.pin(ident)
        if failed:
            self.conflict(failed)
            return False
        self.forget([i for i in self.unsatisfied() if i in known and i not in before])
        self.states.append(self.state.copy())
        return False

    def run(self, requirements) -> dict:
        """ident -> candidate, of all that is reached from the requirements."""
        self.states = [State({}, {}, [])]
        for requirement in requirements:
            try:
                self.add(self.state.criteria, requirement, None)
            except Conflict as conflict:
                raise Impossible(conflict.criterion.information) from None
        self.states.append(self.state.copy())
        until = None  # the round in which optimism ends
        for round_index in range(MAX_ROUNDS):
            if self.optimistic and self.saved is not None:
                if until is None:
                    until = round_index + int((MAX_ROUNDS - round_index) * self.optimistic)
                elif round_index >= until:
                    self.roll_back()
                    continue
            if self.step():
                return self.reached()
        raise TooDeep

    def reached(self) -> dict:
        mapping, criteria = self.state.mapping, self.state.criteria
        wanting = {}  # parent ident -> idents
        todo = []
        for ident, criterion in criteria.items():
            for _, parent in criterion.information:
                if parent is None:
                    todo.append(ident)
                elif mapping.get(parent.ident) is parent:
                    wanting.setdefault(parent.ident, []).append(ident)
        found = {}
        while todo:
            ident = todo.pop()
            if ident not in found and ident in mapping:
                found[ident] = mapping[ident]
                todo += wanting.get(ident, ())
        return found
