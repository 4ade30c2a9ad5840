"""Quality scores: text that is worth reading scores above what is not."""

import random
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from climbstream.builder.features.languages import identify
from climbstream.builder.features.quality import (
    COUNTS,
    count_text,
    score_counts,
    score_documents,
)
from climbstream.builder.settings import SCORES, BuildSettings

PROSE = """\
The harbour at Lowmere was built in the autumn of 1803, when the river had moved its bed for the
second time and the old quay stood dry at every tide. The engineer in charge, a quiet man from the
north called Abel Thorne, had studied how sand behaves in moving water, and he knew that a wall
alone would not help. He therefore had two low dams laid across the mouth, so that the current would
become narrow and fast and carry the sand out by itself. It took eleven years and most of the money
that the town had, but it worked, and the method was copied in other places along the coast. What
makes his solution interesting even now is that he used no machine at all: the sea did the work.
"""
CODE = '''\
def read_lines(path, encoding="utf-8"):
    """Return the lines of a file that are not empty, without white space at their ends."""
    result = []
    with open(path, encoding=encoding) as file:
        for number, line in enumerate(file, start=1):
            line = line.strip()
            if not line:
                continue
            if line.startswith("#"):
                # A comment is kept where it says what the next line means.
                result.append((number, line[1:].strip()))
            else:
                result.append((number, line))
    return result


class Reader:
    """Reads the lines of many files, one after the other."""

    def __init__(self, paths):
        self.paths = list(paths)
        self.count = 0

    def __iter__(self):
        for path in self.paths:
            for number, line in read_lines(path):
                self.count += 1
                yield path, number, line
'''
TABLE = "year,month,t_min,t_max,rain\n" + "".join(
    f"{1950 + i // 12},{i % 12 + 1},{i * 37 % 19}.{i % 10},{i * 53 % 31}.{i % 7},{i * 91 % 140}\n"
    for i in range(120)
)
LOG = "".join(
    f"2024-03-{i % 28 + 1:02d}T{i % 24:02d}:{i * 7 % 60:02d}:12.{i:03d}Z kafka[{4000 + i}]: INFO "
    f"[ReplicaFetcher replicaId={i % 5}] partition=0x{i * 7919:08x} offset={i * 104729} ok=1\n"
    for i in range(80)
)
COOKIES = """\
We use cookies. Accept all cookies. Reject all. Manage your cookie consent settings. Privacy policy
Terms of use. Log in. Sign up. Subscribe to our newsletter. Follow us. Share this. Read more.
Necessary cookies. Analytics cookies. Marketing cookies. By using this site you accept cookies.
Cookie settings. Save consent. Learn more. All rights reserved. Privacy policy. Terms of service.
"""
SPAM = """\
BUY NOW!!! Best price guaranteed! Click here for a FREE offer, save up to 80% off on all deals!!!
Limited time offer, act now and order now! Cheap watches only $ 49.99, free shipping, money back
guarantee! Click here to subscribe, winner! Casino bonus $500.00, click click click! Discounts, buy
2 get 1 free, sale ends today!!! Order now!! Unsubscribe here. Click to buy cheap discount deals!
"""
WRECK = "\ufffd\ufffd \ufffd\ufffd\ufffd text \ufffd\ufffd \ufffd " * 40


def scores(text):
    language = identify([text])[0, 0]
    return dict(zip(SCORES, score_documents([text], [language])[0].tolist(), strict=True))


@pytest.mark.parametrize("good", [PROSE, CODE], ids=["prose", "code"])
@pytest.mark.parametrize("junk", [TABLE, LOG, WRECK], ids=["table", "log", "mangled text"])
def test_text_and_code_score_above_what_no_one_reads(good, junk):
    assert scores(good)["overall"] > scores(junk)["overall"] + 1


@pytest.mark.parametrize("junk", [COOKIES, SPAM], ids=["cookie notice", "spam"])
def test_text_and_code_score_above_what_wants_to_sell(junk):
    assert min(scores(PROSE)["advertisement"], scores(CODE)["advertisement"]) > (
        scores(junk)["advertisement"] + 1
    )


@pytest.mark.parametrize("text", [PROSE, CODE], ids=["prose", "code"])
def test_good_text_is_above_the_thresholds(text):
    settings = BuildSettings()
    for least in (settings.min_cluster_score, settings.min_document_score):
        assert all(scores(text)[name] >= low for name, low in least.items())


@pytest.mark.parametrize("text", [TABLE, LOG, WRECK, COOKIES, SPAM])
def test_junk_is_below_a_threshold_of_clusters(text):
    least = BuildSettings().min_cluster_score
    assert any(scores(text)[name] < low for name, low in least.items())


def test_prose_that_explains_is_more_educational_than_a_list_of_names():
    names = "\n".join(f"{a} {b}" for a in ("Anna", "Otto", "Ilse", "Karl") for b in PROSE.split())
    assert scores(PROSE)["educational"] > scores(names)["educational"]


@given(st.lists(st.text() | st.sampled_from([PROSE, SPAM, "", "\0", "\ud83d", "7" * 9000])))
def test_any_text_has_four_scores_from_0_to_5(texts):
    languages = (["en", "ja", "code", "und"] * len(texts))[: len(texts)]
    found = score_documents(texts, languages)
    assert (found.shape, found.dtype) == ((len(texts), 4), np.float32)
    assert ((found >= 0) & (found <= 5)).all()


def test_a_text_has_the_same_scores_whatever_stands_beside_it():
    np.testing.assert_array_equal(
        score_documents([SPAM, PROSE], ["en", "en"])[1], score_documents([PROSE], ["en"])[0]
    )


RIGHTS = {  # parts of the Universal Declaration of Human Rights
    "en": """Everyone has the right to a standard of living adequate for the health
        of himself and of his family, including food, clothing, housing and medical care. All
        children, whether born in or out of wedlock, shall enjoy the same protection. Everyone
        has the right to education, which shall be free, at least in the first years of school, and
        parents may choose what kind of education their children are given.""",
    "ru": """Каждый человек имеет право на такой жизненный уровень, включая пищу, одежду, жилище и
        медицинский уход, который необходим для поддержания здоровья его самого и его семьи. Все
        дети, родившиеся в браке или вне брака, должны пользоваться одинаковой социальной защитой.
        Каждый человек имеет право на образование. Образование должно быть бесплатным, по меньшей
        мере в том, что касается начального и общего. Родители имеют право выбора вида образования
        для своих малолетних детей, и никто не должен быть лишён этого.""",
    "el": """Καθένας έχει δικαίωμα σε ένα βιοτικό επίπεδο ικανό να εξασφαλίσει στον ίδιο και στην
        οικογένειά του υγεία και ευημερία, και ειδικότερα τροφή, ρουχισμό, κατοικία. Όλα τα παιδιά,
        ανεξάρτητα αν είναι νόμιμα ή εξώγαμα, απολαμβάνουν την ίδια κοινωνική προστασία. Καθένας
        έχει δικαίωμα στην εκπαίδευση, που πρέπει να παρέχεται δωρεάν, τουλάχιστον στη βασική της
        βαθμίδα. Οι γονείς επιλέγουν το είδος της παιδείας που θα δοθεί στα παιδιά τους.""",
    "hi": """प्रत्येक व्यक्ति को ऐसे जीवनस्तर को प्राप्त करने का अधिकार है जो उसे और उसके परिवार के
        स्वास्थ्य एवं कल्याण के लिए पर्याप्त हो। इसके अन्तर्गत खाना, कपड़ा, मकान शामिल हैं।
        प्रत्येक बच्चे को
        समान सामाजिक संरक्षण प्राप्त होगा। प्रत्येक व्यक्ति को शिक्षा का अधिकार है।
        शिक्षा कम से कम प्रारम्भिक अवस्थाओं में निःशुल्क होगी, और माता-पिता चुन सकते हैं
        कि उनके बच्चों को कैसी शिक्षा मिले।""",
    "ja": """すべて人は、衣食住、医療及び必要な社会的施設等により、自己及び家族の健康及び福祉に
        十分な生活水準を保持する権利並びに失業、疾病、心身障害の場合は、保障を受ける権利を有する。""",
    "th": """ทุกคนมีสิทธิในมาตรฐานการครองชีพอันเพียงพอสำหรับสุขภาพและความอยู่ดีของตนและของครอบครัว
        รวมทั้งอาหาร เครื่องนุ่งห่ม ที่อยู่อาศัย และการดูแลรักษาทางการแพทย์""",
}
RIGHTS = {language: " ".join(text.split()) for language, text in RIGHTS.items()}


def overall(text, language):
    return score_documents([text], [language])[0, 0]


def shuffled(text, seed):
    """Put the letters of each word of ``text`` in another order."""
    random = np.random.default_rng(seed)
    return " ".join("".join(random.permutation(list(word))) for word in text.split(" "))


@pytest.mark.parametrize("language", RIGHTS)
def test_plain_text_stays_in_every_script(language):
    assert overall(RIGHTS[language], language) > 3


@pytest.mark.parametrize("language", RIGHTS)
@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "\n".join([text] * 20),
        lambda text: shuffled("".join([text] * 30), 0),
        lambda text: " ".join(f"{n}.{n % 7} | {text[n % 50]}" for n in range(200)),
    ],
    ids=["repeated", "letters shuffled", "numbers"],
)
def test_junk_of_form_falls_in_every_script(language, damage):
    assert overall(damage(RIGHTS[language]), language) < 1


@pytest.mark.parametrize("language", sorted(RIGHTS.keys() - {"en"}))
@pytest.mark.parametrize("encoding", ["latin-1", "cp1251"])
def test_text_in_utf_8_that_was_read_as_another_encoding_falls(language, encoding):
    text = "\n".join(f"{n} {RIGHTS[language]}" for n in range(2))
    assert overall(text.encode().decode(encoding, "replace"), "und") < 1


def test_words_in_an_order_as_by_chance_fall_and_in_their_own_order_stay():
    random = np.random.default_rng(0)
    phrases = ["и не только", "в том числе", "по крайней мере", "так же как", "для того чтобы"]
    names = ["".join(random.choice(list("абвгдежзиклмно"), 6)) for _ in range(200)]
    ordered = " ".join(f"{phrases[n % 5]} {name}" for n, name in enumerate(names))
    by_chance = " ".join(random.permutation(ordered.split()))
    assert overall(ordered, "ru") > 2
    assert overall(by_chance, "ru") < 1


SYLLABLES = {
    "pl": "sta ren kol mi du pe lar to sek wa nos bri".split(),
    "ru": "ста рен кол ми ду пе лар то сек ва нос бри".split(),
    "el": "στα ρεν κολ μι δυ πε λαρ το σεκ βα νος βρι".split(),
}


def random_words(syllables, count):
    random = np.random.default_rng(0)
    return ["".join(random.choice(syllables, random.integers(2, 5))) for _ in range(count)]


@pytest.mark.parametrize("language", SYLLABLES)
def test_sentences_that_begin_as_by_chance_fall_though_too_short_to_tell_by_pairs(language):
    words = random_words(SYLLABLES[language], 72)
    ends = {n: f"{words[n].lower()}." for n in range(5, 72, 6)}
    starts = {n: words[n].title() for n in range(0, 72, 6)}
    words = [starts.get(n) or ends.get(n) or word for n, word in enumerate(words)]
    by_chance = np.random.default_rng(1).permutation(words)
    assert overall(" ".join(words), language) > 3
    assert overall(" ".join(words).lower(), language) > 3
    assert overall(" ".join(by_chance), language) < 1.5


def test_characters_in_an_order_as_by_chance_fall_and_in_their_own_order_stay():
    phrases = ["について", "ことができる", "によって", "のために", "であると"]
    names = random_words(list("春夏秋冬山川海空花鳥風月人心道国語学校会社電車東西南北"), 60)
    ordered = "".join(f"{name[:3]}{phrases[n % 5]}、" for n, name in enumerate(names))
    by_chance = "".join(np.random.default_rng(1).permutation(list(ordered)))
    assert overall(ordered, "ja") > 2
    assert overall(by_chance, "ja") < 1


def test_terms_with_what_they_mean_further_to_the_right_are_no_list_of_fragments():
    words = random_words(SYLLABLES["pl"], 64)
    lines = [[f"--{words[n]} NAMN", f"NAMN {' '.join(words[n : n + 8])}"] for n in range(0, 64, 8)]
    manual = "\n".join(f"    {term}\n        {meaning}" for term, meaning in lines)
    column = "\n".join(f"{meaning}" for _, meaning in lines)
    assert overall(manual, "sv") > 3
    assert overall(column, "sv") < 2


NOTICES = {
    "ru": """Мы пользуемся файлами cookie. Подпишитесь на рассылку новостей. Принять все файлы.
        Отказаться от необязательных. Войдите, чтобы написать отзыв. Читайте нас в социальных сетях.
        Прочтите правила о личных данных. Настройки можно изменить позже.""",
    "hi": """हम कुकीज़ का उपयोग करते हैं। हमारे समाचार पत्र की सदस्यता लें। सभी स्वीकार करें।
        अस्वीकार करें। टिप्पणी करने के लिए लॉग इन करें। हमारी गोपनीयता नीति पढ़ें।
        यह लेख अपने दोस्तों के साथ साझा करें।""",
    "ja": """当サイトではクッキーを使用しています。ニュースレターに登録してください。
        すべて受け入れる。設定を変更することができます。コメントするにはログインしてください。公式アカウントをフォローする。
        個人情報の取り扱いについてはこちらをご覧ください。""",
}
NOTICES = {
    language: [line.strip() for line in re.findall(r"[^.。।]+[.。।]", text)]
    for language, text in NOTICES.items()
}


@pytest.mark.parametrize("language", NOTICES)
def test_a_page_that_says_its_sentences_again_in_another_order_falls(language):
    random, notices = np.random.default_rng(0), NOTICES[language]
    page = "\n".join(" ".join(random.permutation(notices)) for _ in range(2))
    assert overall(page, language) < 1


@pytest.mark.parametrize("language", NOTICES)
def test_sentences_that_are_said_once_stay(language):
    assert overall(" ".join([*NOTICES[language], RIGHTS[language]]), language) > 3


def test_a_refrain_of_whole_lines_stays():
    refrain = ["Плыви, мой чёлн.", "Плыви по воле волн.", "Никто не ждёт на берегу."]
    sentences = RIGHTS["ru"].split(". ")
    song = [line for sentence in sentences for line in (f"{sentence}.", *refrain)]
    assert overall("\n".join(song), "ru") > 2


def test_code_may_say_its_sentences_again():
    notes = "# The title comes first. The year may be missing. A case has no order.\n"
    assert overall(notes + RUBY + notes, "code") > 3


def test_the_words_of_english_judge_only_english():
    text = SPAM.replace("!", ".").lower()
    assert score_documents([text], ["de"])[0, 3] > score_documents([text], ["en"])[0, 3] + 2
    assert score_documents([PROSE], ["de"])[0, 1] > 1


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

  class Case
    include Enumerable

    def each(&block)
      @books.sort.each(&block)
    end

    def add(*books)
      books.flatten.each { |book| @books << book unless lent?(book) }
    end

    def lent?(book) = @lent.key?(book.title)
  end
end
"""


def test_code_of_a_programming_language_whose_words_are_not_known_stays():
    assert identify([RUBY])[0, 0] == "code"
    assert overall(RUBY, "code") > 3


CALLS = (
    "".join(
        f'set(PLATFORM_SHARED_{what}_FLAGS_{kind} "-{flag}{what.lower()}")\n'
        for what in ("LIBRARY", "MODULE", "OBJECT", "ARCHIVE")
        for kind, flag in (("C_RELEASE", "O2 "), ("CXX_RELEASE", "O3 "), ("FORTRAN_DEBUG", "g "))
    )
    + "include(Platform/UnixPaths)\nenable_language(CXX OPTIONAL)\n"
)


def test_lines_of_calls_with_names_that_marks_join_are_code_and_stay():
    assert identify([CALLS])[0, 0] == "code"
    assert overall(CALLS, "code") > 3
    # What is packed goes on for longer than any name.
    packed = f"{CALLS}data({'q8Zk/v3R+' * 120})\n" * 2
    assert overall(packed, "code") < BuildSettings().min_document_score["overall"]


MANUAL = """\
Open the Activities overview and start typing Settings. Click on Settings. Click Sound to open the
panel. In the Alert Sound section, select an alert sound. Each sound will play when you click on it,
so you can hear how it sounds. Click None to turn it off. To change the volume of one application,
click Volume Levels and move the slider of that application to the left or to the right.
"""


def test_a_manual_that_says_what_to_click_is_no_advertisement():
    assert scores(MANUAL)["advertisement"] >= BuildSettings().min_cluster_score["advertisement"]


@pytest.mark.parametrize(
    "item",
    ["用户登录 联系我们 产品中心 公司新闻 人才招聘 网站地图 下载专区 常见问题 售后服务 关于我们",
     "მთავარი სიახლეები კონტაქტი გალერეა პროდუქცია მომსახურება ვაკანსიები პარტნიორები რუკა არქივი",
     "דף־הבית חדשות צור־קשר מוצרים שירותים גלריה שותפים משרות מפה ארכיון"],
)  # fmt: skip
def test_short_lines_are_fragments_of_a_list_where_letters_have_no_case(item):
    words = item.split()
    lines = [f"{words[i % len(words)]} {words[i * 7 % len(words)]}"[:20] for i in range(60)]
    counts = dict(zip(COUNTS, count_text("\n".join(lines)).tolist(), strict=True))
    assert counts["broken"] == 59


def test_headings_right_above_their_paragraphs_are_no_fragments():
    articles = [
        f"第{i}條\n{'人人有權享受法律的平等保護，不受任何歧視。' * (i % 3 + 1)}" for i in range(12)
    ]
    counts = dict(zip(COUNTS, count_text("\n\n".join(articles)).tolist(), strict=True))
    assert counts["broken"] == 0


def test_a_few_english_words_again_and_again_fall():
    words = "stick where navigate moved read will select more items they files when copy".split()
    chance = random.Random(0)
    lines = [" ".join(chance.choices(words, k=14)) + "." for _ in range(15)]
    assert scores("\n".join(lines))["overall"] < BuildSettings().min_document_score["overall"]


def test_a_text_of_few_accents_falls_too_if_they_are_mangled():
    text = "Llapan nunakunapa derëchunkunam kanman mey markachowpis leykuna, kanqannow kananpaq. "
    rest = "Runakunaqa huk yachaywan kawsanku, wakinkunata yanapaspa llapan watakunapi. "
    whole = text + rest + rest.title() + text.upper().replace("Ë", "E")
    mangled = whole.encode().decode("latin-1")
    counts = np.array([count_text(whole), count_text(mangled)])
    plain, low = score_counts(counts, np.array(["qu", "qu"]))[:, 0]
    assert len(mangled) == len(whole) + 1
    assert low < 0.2 * plain


def test_an_exclamation_mark_of_a_program_is_no_shout():
    text = "".join(
        f"!!$ step {i} of the solver\n  if (x(i) != 0) call add(x, {i})\n" for i in range(40)
    )
    counts = dict(zip(COUNTS, count_text(text).tolist(), strict=True))
    shouts = dict(zip(COUNTS, count_text("Buy it now!!! It is good!").tolist(), strict=True))
    assert (counts["bangs"], shouts["bangs"]) == (0, 4)


def test_a_few_addresses_in_a_message_are_no_fault_and_many_are():
    address = "https://lists.example.org/archives/developers/2024-March/thread-0012345.html"
    few, many = (
        dict(zip(COUNTS, count_text(f"{PROSE}\n{address}\n" * n).tolist(), strict=True))
        for n in (4, 8)
    )
    assert (few["long"], many["long"]) == (0, 4 * len(address))


def counted(text):
    return dict(zip(COUNTS, count_text(text).tolist(), strict=True))


def test_cookies_that_are_baked_sell_nothing_and_those_of_a_site_do():
    baked = (
        "Ann is baking cookies. She bakes three dozen oatmeal raisin cookies, two dozen sugar "
        "cookies, and four dozen chocolate chip ones. Ann gives away two dozen of the first kind, "
        "and a few of each other kind. How many cookies does she keep, and who ate the rest?"
    )
    site = "We use cookies and accept all partners; see our cookie policy and cookie settings. " * 3
    (_, _, _, kitchen), (_, _, _, notice) = score_documents([baked, site], ["en", "en"])
    assert notice < 1.5 < 2.5 < kitchen


def test_a_short_problem_of_mathematics_stays_for_its_formulas():
    problem = (
        r"Problem: If $\sqrt{5 + x} + \sqrt{20 - x} = 7$, what is the value of $(5 + x)(20 - x)$? "
        r"Solution: Square both sides of the equation to obtain \[ (5+x)+2\sqrt{5+x}\sqrt{20-x}"
        r"+(20-x)=49. \]This equation simplifies to \[ 2\sqrt{(5+x)(20-x)}=24, \]so "
        r"$(5+x)(20-x)=(24/2)^2=\boxed{144}$."
    )
    assert score_documents([problem], ["en"])[0, 0] > 1


def test_tibetan_has_words_between_its_marks():
    assert counted("འཛམ་གླིང་འདི་ནང་མི་ག་ར་དབང་ཆ་འདྲ་མཉམ་ཡོདཔ་ཨིན་པས་ཟེར་བཤདཔ་ཨིན།" * 4)["long"] == 0


def test_brackets_that_lost_their_partners_tell_shuffled_text_where_letters_have_no_case():
    words = [f"[{a}ב ג{a}ד](ל{a} {a}מ)" for a in "אבגדהוזחטיכלמנסעפצקרשת"]
    ordered = " ".join(f"{word} {word[1:3]}ם {word[4:6]}ן" for word in words)
    shuffled = ordered.split()
    random.Random(3).shuffle(shuffled)
    good, junk = counted(ordered), counted(" ".join(shuffled))
    assert (good["brackets"], good["unmatched"]) == (44, 0)
    assert junk["unmatched"] > 0.45 * junk["brackets"]
    assert score_documents([" ".join(shuffled)], ["he"])[0, 0] < 1
