//! `docs/operators.md` follows the operator table; `TCC_BLESS=1` writes it anew.

use std::path::Path;

#[test]
fn the_operator_page_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operators.md");
    let page = tcc_ir::operator::reference_page();
    if std::env::var_os("TCC_BLESS").is_some() {
        std::fs::write(&path, &page).expect("docs/operators.md can be written");
    }
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(known == page, "docs/operators.md is not what the table gives; run with TCC_BLESS=1");
}
