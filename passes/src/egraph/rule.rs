//! Rewrite rules: named, directional, `lhs => rhs` with side conditions.
//!
//! Three forms. A *pattern* rule is text on both sides; variables of the right side that the left side does not bind are
//! computed by closures, which refuse by returning `None`. A *node* rule looks at every node of some operators, for
//! operators with any number of operands. A *graph* rule looks at the whole e-graph, for rules over several roots.
//!
//! In left sides a number stands for a constant all of whose elements have that value, and commutative functions match
//! in both orders. A rule result whose type differs from the class's is dropped.

use std::collections::BTreeMap;

use egg::{ENodeOrVar, Id, Language, Pattern, RecExpr, Searcher, Subst, Var};
use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::operator::{Operator, OperatorKind};
use tcc_ir::scalar::{Scalar, ScalarOp};
use tcc_ir::types::TensorType;

use super::analysis::{Graph, Lookup};
use super::language::{Head, Node, is_commutative};
use super::term::Term;

type Condition = Box<dyn Fn(&Match) -> bool + Send + Sync>;
type Computed = Box<dyn Fn(&Match) -> Option<Term> + Send + Sync>;

/// One place where the left side of a rule holds.
pub struct Match<'a> {
    /// The e-graph, to read.
    pub graph: &'a Graph,
    /// The class that the left side's root is in.
    pub class: Id,
    bindings: Bindings<'a>,
}

enum Bindings<'a> {
    Subst(&'a Subst),
    Extended(&'a Match<'a>, &'a BTreeMap<Var, Term>),
}

impl Match<'_> {
    /// The class that a variable is bound to; `None` for unknown variables.
    pub fn id(&self, variable: &str) -> Option<Id> {
        self.id_of(variable.parse().ok()?)
    }

    /// A variable as a term.
    pub fn term(&self, variable: &str) -> Option<Term> {
        self.term_of(variable.parse().ok()?)
    }

    fn term_of(&self, variable: Var) -> Option<Term> {
        if let Bindings::Extended(_, computed) = &self.bindings
            && let Some(term) = computed.get(&variable)
        {
            return Some(term.clone());
        }
        self.id_of(variable).map(Term::Class)
    }

    fn id_of(&self, variable: Var) -> Option<Id> {
        match &self.bindings {
            Bindings::Subst(subst) => subst.get(variable).copied(),
            Bindings::Extended(inner, _) => inner.id_of(variable),
        }
    }

    /// The operator that an attribute variable holds.
    pub fn operator(&self, variable: &str) -> Option<&Operator> {
        self.graph.operator(self.id(variable)?)
    }

    /// Type of a bound tensor.
    pub fn tensor(&self, variable: &str) -> Option<&TensorType> {
        self.graph.tensor(self.id(variable)?)
    }

    /// Type of the class that is rewritten.
    pub fn result(&self) -> Option<&TensorType> {
        self.graph.tensor(self.class)
    }

    /// Shape of a bound tensor.
    pub fn shape(&self, variable: &str) -> Option<&[Dim]> {
        self.tensor(variable).map(|tensor| &tensor.shape[..])
    }

    /// Element type of a bound tensor.
    pub fn dtype(&self, variable: &str) -> Option<DType> {
        self.tensor(variable).map(TensorType::dtype)
    }

    /// True where a bound tensor is known at compile time.
    pub fn is_constant(&self, variable: &str) -> bool {
        self.id(variable).and_then(|id| self.graph.values(id)).is_some_and(|values| values.constant)
    }

    /// The number that every element of a bound tensor has.
    pub fn splat(&self, variable: &str) -> Option<Scalar> {
        self.graph.values(self.id(variable)?)?.splat
    }
}

enum Form {
    Pattern {
        lhs: Vec<Pattern<Node>>,
        literals: Vec<(Var, f64)>,
        conditions: Vec<Condition>,
        computed: Vec<(Var, Computed)>,
        rhs: RecExpr<ENodeOrVar<Node>>,
    },
    Node {
        heads: Vec<Head>,
        apply: fn(&Graph, Id, &Node) -> Vec<Term>,
    },
    Graph {
        apply: fn(&Graph) -> Vec<(Id, Term)>,
    },
}

/// A rewrite rule.
pub struct Rule {
    /// Name, for logs and tests.
    pub name: &'static str,
    /// `lhs => rhs`, for documentation.
    pub text: String,
    form: Form,
    on_constants: bool,
}

/// A class and an expression that equals it.
pub type Found = (Id, Term);

impl Rule {
    /// A pattern rule.
    ///
    /// # Panics
    ///
    /// Where a side is not well formed; rules are part of the program, and a test constructs them all.
    pub fn new(name: &'static str, lhs: &str, rhs: &str) -> Rule {
        let text = format!("{lhs} => {rhs}");
        let (lhs, literals) = replace_literals(lhs);
        let parse = |side: &str| -> Pattern<Node> {
            side.parse().unwrap_or_else(|error| panic!("rule {name}: '{side}': {error:?}"))
        };
        let literals: Vec<(Var, f64)> = literals
            .into_iter()
            .filter_map(|(variable, value)| Some((variable.parse().ok()?, value)))
            .collect();
        let lhs = orders(parse(&lhs), &literals);
        // What only drops nodes makes equal constants meet; everything else about constants is evaluation.
        let on_constants = rhs.starts_with('?') && text.matches(rhs).count() > 1;
        let rhs = (*parse(rhs).ast).to_vec().into();
        let form = Form::Pattern { lhs, literals, conditions: Vec::new(), computed: Vec::new(), rhs };
        Rule { name, text, form, on_constants }
    }

    /// A rule over every node with one of these operators; `text` documents it.
    pub fn on_nodes(
        name: &'static str,
        text: &str,
        kinds: &[OperatorKind],
        apply: fn(&Graph, Id, &Node) -> Vec<Term>,
    ) -> Rule {
        let heads = kinds.iter().map(|kind| Head::Apply(*kind)).collect();
        Rule { name, text: text.to_string(), form: Form::Node { heads, apply }, on_constants: false }
    }

    /// A rule over every node of the language with one of these heads.
    pub fn on_heads(
        name: &'static str,
        text: &str,
        heads: Vec<Head>,
        apply: fn(&Graph, Id, &Node) -> Vec<Term>,
    ) -> Rule {
        Rule { name, text: text.to_string(), form: Form::Node { heads, apply }, on_constants: false }
    }

    /// A rule over the whole e-graph.
    pub fn on_graph(name: &'static str, text: &str, apply: fn(&Graph) -> Vec<(Id, Term)>) -> Rule {
        Rule { name, text: text.to_string(), form: Form::Graph { apply }, on_constants: false }
    }

    /// Lets a rule that makes terms smaller see compile-time values too, so that equal ones meet.
    pub fn also_on_constants(mut self) -> Rule {
        self.on_constants = true;
        self
    }

    /// Adds a side condition.
    pub fn when(mut self, condition: impl Fn(&Match) -> bool + Send + Sync + 'static) -> Rule {
        if let Form::Pattern { conditions, .. } = &mut self.form {
            conditions.push(Box::new(condition));
        }
        self
    }

    /// Adds the side condition that these variables are known at compile time.
    pub fn when_constant(self, variables: &'static [&'static str]) -> Rule {
        self.when(move |m| variables.iter().all(|variable| m.is_constant(variable)))
    }

    /// Defines a variable of the right side, which may use the left side's; `None` refuses the match.
    pub fn with(
        mut self,
        variable: &str,
        value: impl Fn(&Match) -> Option<Term> + Send + Sync + 'static,
    ) -> Rule {
        if let (Form::Pattern { computed, .. }, Ok(variable)) = (&mut self.form, variable.parse()) {
            computed.push((variable, Box::new(value)));
        }
        self
    }

    /// Defines an attribute variable of the right side.
    pub fn attributes(
        self,
        variable: &str,
        value: impl Fn(&Match) -> Option<Operator> + Send + Sync + 'static,
    ) -> Rule {
        self.with(variable, move |m| value(m).map(Term::Attributes))
    }

    /// Compile-time values are evaluated whatever they are written as, so most rules look for no other forms of them.
    fn skips(&self, graph: &Graph, class: Id) -> bool {
        !self.on_constants && graph.values(class).is_some_and(|values| values.constant)
    }

    /// Every place where the rule holds, with what it gives; at most `limit`.
    pub fn search(&self, graph: &Graph, limit: usize) -> Vec<Found> {
        let mut found = Vec::new();
        match &self.form {
            Form::Pattern { lhs, literals, conditions, computed, rhs } => {
                for pattern in lhs {
                    for matches in pattern.search_with_limit(graph, limit) {
                        if self.skips(graph, matches.eclass) {
                            continue;
                        }
                        for subst in &matches.substs {
                            let m = Match { graph, class: matches.eclass, bindings: Bindings::Subst(subst) };
                            if literals_hold(&m, subst, literals)
                                && conditions.iter().all(|condition| condition(&m))
                            {
                                found.extend(build(&m, computed, rhs).map(|term| (matches.eclass, term)));
                            }
                        }
                    }
                }
            }
            Form::Node { heads, apply } => {
                for head in heads {
                    let Some(classes) = graph.classes_for_op(head) else { continue };
                    let mut classes: Vec<Id> = classes.filter(|class| !self.skips(graph, *class)).collect();
                    classes.sort_unstable();
                    for class in classes {
                        for node in graph[class].nodes.iter().filter(|node| node.discriminant() == *head) {
                            found.extend(apply(graph, class, node).into_iter().map(|term| (class, term)));
                        }
                    }
                }
            }
            Form::Graph { apply } => found = apply(graph),
        }
        found.truncate(limit);
        found
    }
}

fn literals_hold(m: &Match, subst: &Subst, literals: &[(Var, f64)]) -> bool {
    literals.iter().all(|(variable, value)| {
        let Some(splat) = subst.get(*variable).and_then(|id| m.graph.values(*id)?.splat) else {
            return false;
        };
        is_number(splat, *value)
    })
}

/// True where `scalar` is `value`, as near as its type can say.
pub fn is_number(scalar: Scalar, value: f64) -> bool {
    let actual = scalar.as_f64();
    let tolerance = match scalar.dtype {
        DType::F64 => 1e-7,
        DType::F32 => 1e-6,
        dtype if dtype.is_float() => 1e-3,
        _ => 0.0,
    };
    actual == value || (actual - value).abs() <= tolerance * value.abs()
}

fn build(m: &Match, computed: &[(Var, Computed)], rhs: &RecExpr<ENodeOrVar<Node>>) -> Option<Term> {
    let mut values: BTreeMap<Var, Term> = BTreeMap::new();
    for (variable, value) in computed {
        let extended = Match { graph: m.graph, class: m.class, bindings: Bindings::Extended(m, &values) };
        let term = value(&extended)?;
        values.insert(*variable, term);
    }
    let extended = Match { graph: m.graph, class: m.class, bindings: Bindings::Extended(m, &values) };
    term_of(&extended, rhs, rhs.root())
}

fn term_of(m: &Match, ast: &RecExpr<ENodeOrVar<Node>>, at: Id) -> Option<Term> {
    match &ast[at] {
        ENodeOrVar::Var(variable) => m.term_of(*variable),
        ENodeOrVar::ENode(node) => {
            let operands =
                node.children().iter().map(|child| term_of(m, ast, *child)).collect::<Option<Vec<Term>>>()?;
            match node {
                Node::Apply(..) => {
                    let mut operands = operands.into_iter();
                    let operator = match operands.next()? {
                        Term::Attributes(operator) => operator,
                        Term::Class(id) => m.graph.operator(id)?.clone(),
                        _ => return None,
                    };
                    Some(Term::apply(operator, operands))
                }
                Node::Scalar(op, _) => Some(Term::Scalar(*op, operands)),
                Node::Result(index, _) => Some(Term::Result(*index, Box::new(operands.into_iter().next()?))),
                Node::Attributes(_) | Node::Constant(_) | Node::Leaf(_) => None,
            }
        }
    }
}

/// Replaces numbers in a left side by variables.
fn replace_literals(text: &str) -> (String, Vec<(String, f64)>) {
    let mut literals = Vec::new();
    let mut out = String::new();
    let mut word = String::new();
    for letter in text.chars().chain(std::iter::once(' ')) {
        if !matches!(letter, ' ' | '(' | ')') {
            word.push(letter);
            continue;
        }
        match word.parse::<f64>() {
            Ok(value) => {
                let name = format!("?literal{}", literals.len());
                out += &name;
                literals.push((name, value));
            }
            Err(_) => out += &word,
        }
        word.clear();
        out.push(letter);
    }
    (out, literals)
}

/// The pattern with the arguments of its commutative functions in every order. Constants stand second in the e-graph, so
/// a literal keeps its place.
fn orders(pattern: Pattern<Node>, literals: &[(Var, f64)]) -> Vec<Pattern<Node>> {
    let ast: Vec<ENodeOrVar<Node>> = pattern.ast.to_vec();
    let is_literal = |id: Id| matches!(&ast[usize::from(id)], ENodeOrVar::Var(var) if literals.iter().any(|(l, _)| l == var));
    let is_variable = |id: Id| matches!(&ast[usize::from(id)], ENodeOrVar::Var(_));
    // Two variables that occur once give the same matches both ways only if the rule treats them alike, so they swap too.
    let mut places = Vec::new();
    for (place, node) in ast.iter().enumerate() {
        if let ENodeOrVar::ENode(Node::Scalar(ScalarOp::Call(function), children)) = node
            && is_commutative(*function)
            && children[0] != children[1]
            && !is_literal(children[0])
            && !is_literal(children[1])
            && !(place + 1 == ast.len() && is_variable(children[0]) && is_variable(children[1]))
        {
            places.push(place);
        }
    }
    places.truncate(4);
    (0..1usize << places.len())
        .map(|choice| {
            let mut nodes = ast.clone();
            for (bit, place) in places.iter().enumerate() {
                if choice >> bit & 1 == 1
                    && let ENodeOrVar::ENode(node) = &mut nodes[*place]
                {
                    node.children_mut().swap(0, 1);
                }
            }
            Pattern::new(nodes.into())
        })
        .collect()
}
